// flags: -Wl,--hash-style=sysv
// As gccs_sysv.c.
#include "stale.c"
