// A table of keys of 32 bytes and values of 64, among which blocks of 32 bytes are lost: where an allocator keeps no headers, each lies as far behind
// a key as it is long, and a value as far before the next.
#include "test.h"

static struct entry {
    void *key, *value;
} *volatile table;
enum { ENTRIES = 1000, LOST = 50 };

static NOINLINE void fill(void) {
    table = malloc(ENTRIES * sizeof *table);
    for (int i = 0; i < ENTRIES; i++) {
        table[i] = (struct entry){memset(malloc(32), 'k', 32), memset(malloc(64), 'v', 64)};
        if (i % (ENTRIES / LOST) == 0) memset(malloc(32), 'l', 32);
    }
}

int main(void) {
    below(fill);
    return 0;
}
