// Loses blocks of sizes that allocators round up by much, each made by another call, and one that has changed its size in its place.
#include "test.h"

static NOINLINE void lose(void) {
    static const size_t sizes[] = {33, 300, 333, 700, 1337, 2600, 5000, 9000, 20001, 100001, 300001, 3000001};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        void *block = 0;
        switch (i % 4) {
        case 0: block = malloc(sizes[i]); break;
        case 1: block = calloc(1, sizes[i]); break;
        case 2: block = realloc(malloc(sizes[i] / 3), sizes[i]); break;
        case 3: check(posix_memalign(&block, 64, sizes[i]) == 0);
        }
        memset(block, 0xa5, sizes[i]);
    }
    char *block = malloc(1400);
    memset(block, 0xa5, 1400);
    block = realloc(block, 1401);
    check((unsigned char)block[1399] == 0xa5);
    block[1400] = 1;
}

int main(void) {
    below(lose);
    return 0;
}
