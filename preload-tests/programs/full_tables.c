// Fills a table of the library's. `blocks`: loses 1,000 blocks more than are remembered from scan to scan, is scanned twice, and ends.
// `stacks`: allocates from 2^21 stacks, one more than there are numbers for, and is scanned.
#include "test.h"

enum { REMEMBERED = 1 << 20, MORE = 1000, DEPTH = 21 };

static NOINLINE void lose_all(void) {
    for (volatile int i = 0; i < REMEMBERED + MORE; i = i + 1) malloc(16);
}

static NOINLINE void one(int depth);
static NOINLINE void other(int depth);
static NOINLINE void end(void) {
    void *volatile block = malloc(16);
    free(block);
}
static void fork_up(int depth) {
    if (depth == 0) return end();
    one(depth - 1);
    other(depth - 1);
    __asm__ volatile("");
}
static void one(int depth) {
    fork_up(depth);
    __asm__ volatile("nop");
}
static void other(int depth) {
    fork_up(depth);
    __asm__ volatile("");
}

int main(int count, char **words) {
    check(count > 1);
    if (is(words[1], "blocks")) {
        below(lose_all);
        scrub();
        scan();
    } else {
        check(is(words[1], "stacks"));
        fork_up(DEPTH);
    }
    scan();
    return 0;
}
