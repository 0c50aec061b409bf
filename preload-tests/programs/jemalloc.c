// jemalloc's own functions, as redis has its Lua's memory from them: made, aligned, grown and given back by each. A block of 1337 bytes is
// lost, kept, or given back.
#define _GNU_SOURCE
#include "test.h"
#include <dlfcn.h>

#define LG_ALIGN(lg) (lg)
#define ZERO 0x40
// By the program's own reference to it; or, where there is none, by dlsym.
#define FUNCTION(result, name, ...) \
    __attribute__((weak)) result name##x(__VA_ARGS__); \
    static result (*name##_by)(__VA_ARGS__); \
    __attribute__((constructor)) static void look_up_##name(void) { \
        *(void **)&name##_by = name##x ? (void *)name##x : dlsym(RTLD_DEFAULT, #name "x"); \
    }
FUNCTION(void *, malloc, size_t size, int flags)
FUNCTION(void *, ralloc, void *block, size_t size, int flags)
FUNCTION(size_t, xalloc, void *block, size_t size, size_t extra, int flags)
FUNCTION(void, dalloc, void *block, int flags)
FUNCTION(void, sdalloc, void *block, size_t size, int flags)
#undef FUNCTION
static void **holder;

static void *made(void) { return malloc_by(1337, 0); }
static void *cleared(void) {
    char *block = malloc_by(1337, ZERO);
    for (int i = 0; i < 1337; i++) check(block[i] == 0);
    return block;
}
static void *aligned(void) {
    void *block = malloc_by(1337, LG_ALIGN(8));
    check((size_t)block % 256 == 0);
    return block;
}
static void *grown(void) {
    char *block = malloc_by(100, 0);
    memset(block, 7, 100);
    block = ralloc_by(block, 1337, LG_ALIGN(6));
    for (int i = 0; i < 100; i++) check(block[i] == 7);
    check((size_t)block % 64 == 0);
    return block;
}
static void *of_malloc(void) { return ralloc_by(malloc(100), 1337, 0); }
static void *(*const ways[])(void) = {made, cleared, aligned, grown, of_malloc};
static int way;
static NOINLINE void fill(void) { *holder = ways[way](); }

int main(int count, char **words) {
    check(count == 3 && malloc_by && ralloc_by && xalloc_by && dalloc_by && sdalloc_by);
    way = atoi(words[1]);
    // One of theirs keeps it.
    holder = malloc_by(64, ZERO);
    below(fill);
    // In its place it may or may not grow; what is told is what there is.
    check(xalloc_by(holder, 64, 64, 0) >= 64);
    if (is(words[2], "lose")) *holder = 0;
    if (is(words[2], "give")) dalloc_by(*holder, 0);
    if (is(words[2], "give_sized")) sdalloc_by(*holder, 1337, way == 2 ? LG_ALIGN(8) : way == 3 ? LG_ALIGN(6) : 0);
    if (is(words[2], "free")) free(*holder);
    return 0;
}
