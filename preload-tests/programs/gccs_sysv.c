// flags: -rdynamic -Wl,--hash-style=sysv
// Its names stand in the table of old.
#include "gccs.c"
