// Asks for scans itself, by leakscan.h.
#include "test.h"
#include <stdio.h>

static NOINLINE void lose(void) { memset(malloc(1337), 0, 1337); }

int main(void) {
    below(lose);
    int loaded = leakscan_is_loaded(), first = LEAKSCAN_SCAN();
    scrub();
    printf("loaded %d, scanned %d, scanned %d\n", loaded, first, LEAKSCAN_SCAN());
    return 0;
}
