// flags: -shared -fPIC
// Another library in LD_PRELOAD that stands around malloc and its like, as profilers do, and counts the calls.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
#include <string.h>

static void *(*next_malloc)(size_t), *(*next_calloc)(size_t, size_t), *(*next_realloc)(void *, size_t);
static void (*next_free)(void *);
static long calls[4];
// Calls so far of malloc, calloc, realloc, free.
long wrapped_calls(int which) { return __atomic_load_n(&calls[which], __ATOMIC_SEQ_CST); }
static void count(int which) { __atomic_add_fetch(&calls[which], 1, __ATOMIC_SEQ_CST); }

// dlsym may ask for memory itself.
static char early[4096] __attribute__((aligned(16)));
static size_t early_used;
static int is_resolving;
static void *from_early(size_t size) {
    void *block = early + early_used;
    early_used += (size + 15) & ~(size_t)15;
    return early_used <= sizeof early ? block : NULL;
}
static int is_early(void *block) { return (char *)block >= early && (char *)block < early + sizeof early; }
static void resolve(void) {
    is_resolving = 1;
    *(void **)&next_calloc = dlsym(RTLD_NEXT, "calloc");
    *(void **)&next_realloc = dlsym(RTLD_NEXT, "realloc");
    *(void **)&next_free = dlsym(RTLD_NEXT, "free");
    *(void **)&next_malloc = dlsym(RTLD_NEXT, "malloc");
    is_resolving = 0;
}

void *malloc(size_t size) {
    if (is_resolving) return from_early(size);
    if (!next_malloc) resolve();
    count(0);
    return next_malloc(size);
}
void *calloc(size_t number, size_t size) {
    if (is_resolving) return from_early(number * size);
    if (!next_malloc) resolve();
    count(1);
    return next_calloc(number, size);
}
void *realloc(void *block, size_t size) {
    if (!next_malloc) resolve();
    count(2);
    if (!is_early(block)) return next_realloc(block, size);
    void *moved = next_malloc(size);
    size_t old = (size_t)(early + sizeof early - (char *)block);
    return moved ? memcpy(moved, block, size < old ? size : old) : NULL;
}
void free(void *block) {
    if (is_early(block)) return;
    if (!next_malloc) resolve();
    count(3);
    next_free(block);
}
