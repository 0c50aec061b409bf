// flags: -rdynamic
#include "gccs.h"

// By this name the collector is known.
void _Z8ggc_freePv(void *object) { (void)object; }
