// flags: -rdynamic
#include "perls.h"

// By this name perl is known.
void perl_destruct(void) {}
