// A table that doubles: its parts hold the items 1, 2 to 3, 4 to 7, ..., and each is known by where its item 0 would be, as many bytes before the
// part as it is long. The first argument says what is lost: nothing, the part of 2,048 bytes, or all but that part, which alone is no table. Or it
// is the number of the only part that has no plain pointer beside.
#include "test.h"
#include <stdint.h>

enum { PARTS = 12, PART = 8 };
static uint64_t *volatile parts[PARTS];
static uint64_t *volatile plain[PARTS];
static int alone = -1;

static NOINLINE void make(int part) {
    size_t items = (size_t)1 << part;
    uint64_t *block = malloc(items * sizeof *block);
    memset(block, 0, items * sizeof *block);
    parts[part] = block - items;
    if (alone >= 0 && part != alone) plain[part] = block;
}
static NOINLINE void make_all(void) {
    // Those of some lengths lie behind another block of that length.
    static void *volatile others[PARTS];
    for (int part = 0; part < PARTS; part++) {
        if (part % 3 == 0) others[part] = malloc(sizeof(uint64_t) << part);
        make(part);
    }
}

int main(int count, char **arguments) {
    check(count == 2);
    if (arguments[1][0] >= '0' && arguments[1][0] <= '9') alone = atoi(arguments[1]);
    below(make_all);
    for (int part = 0; part < PARTS; part++) {
        size_t item = (size_t)1 << part;
        parts[part][item] = part;
        int is_the_part = part == PART;
        if (strcmp(arguments[1], is_the_part ? "part" : "rest") == 0) parts[part] = 0;
    }
    scrub();
    exit(0);
}
