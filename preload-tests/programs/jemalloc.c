// jemalloc's own functions, as redis has its Lua's memory from them: made, aligned, grown and given back by each. A block of 1337 bytes is
// lost, kept, or given back.
#include "test.h"

#define LG_ALIGN(lg) (lg)
#define ZERO 0x40
__attribute__((weak)) void *mallocx(size_t size, int flags), *rallocx(void *block, size_t size, int flags);
__attribute__((weak)) size_t xallocx(void *block, size_t size, size_t extra, int flags);
__attribute__((weak)) void dallocx(void *block, int flags), sdallocx(void *block, size_t size, int flags);
static void **holder;

static void *made(void) { return mallocx(1337, 0); }
static void *cleared(void) {
    char *block = mallocx(1337, ZERO);
    for (int i = 0; i < 1337; i++) check(block[i] == 0);
    return block;
}
static void *aligned(void) {
    void *block = mallocx(1337, LG_ALIGN(8));
    check((size_t)block % 256 == 0);
    return block;
}
static void *grown(void) {
    char *block = mallocx(100, 0);
    memset(block, 7, 100);
    block = rallocx(block, 1337, LG_ALIGN(6));
    for (int i = 0; i < 100; i++) check(block[i] == 7);
    check((size_t)block % 64 == 0);
    return block;
}
static void *of_malloc(void) { return rallocx(malloc(100), 1337, 0); }
static void *(*const ways[])(void) = {made, cleared, aligned, grown, of_malloc};
static int way;
static NOINLINE void fill(void) { *holder = ways[way](); }

int main(int count, char **words) {
    check(count == 3 && mallocx && rallocx && xallocx && dallocx && sdallocx);
    way = atoi(words[1]);
    // One of theirs keeps it.
    holder = mallocx(64, ZERO);
    below(fill);
    // In its place it may or may not grow; what is told is what there is.
    check(xallocx(holder, 64, 64, 0) >= 64);
    if (is(words[2], "lose")) *holder = 0;
    if (is(words[2], "give")) dallocx(*holder, 0);
    if (is(words[2], "give_sized")) sdallocx(*holder, 1337, way == 2 ? LG_ALIGN(8) : way == 3 ? LG_ALIGN(6) : 0);
    if (is(words[2], "free")) free(*holder);
    return 0;
}
