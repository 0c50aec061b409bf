// Passes every call on to the next allocator, and does nothing else: what it costs at least to stand between a program and its malloc.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>

void *__libc_malloc(size_t size), *__libc_calloc(size_t number, size_t size), *__libc_realloc(void *block, size_t size);
void __libc_free(void *block);

// (dlsym asks for memory itself: until it has answered, glibc's own serve.)
static void *(*next_malloc)(size_t) = __libc_malloc, *(*next_calloc)(size_t, size_t) = __libc_calloc;
static void *(*next_realloc)(void *, size_t) = __libc_realloc;
static void (*next_free)(void *) = __libc_free;
__attribute__((constructor)) static void look_up(void) {
    *(void **)&next_malloc = dlsym(RTLD_NEXT, "malloc");
    *(void **)&next_calloc = dlsym(RTLD_NEXT, "calloc");
    *(void **)&next_realloc = dlsym(RTLD_NEXT, "realloc");
    *(void **)&next_free = dlsym(RTLD_NEXT, "free");
}
void *malloc(size_t size) { return next_malloc(size); }
void *calloc(size_t number, size_t size) { return next_calloc(number, size); }
void *realloc(void *block, size_t size) { return next_realloc(block, size); }
void free(void *block) { next_free(block); }
