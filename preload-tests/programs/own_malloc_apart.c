// flags: -Wl,--section-start=.text=0x900000
// The same with a hole between its segments, as Chromium has.
#include "own_malloc.c"
