// flags: -shared -fPIC
// Another library in LD_PRELOAD that stands around malloc, as most do: it has found the next one when its constructor has run.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>

static void *(*next_malloc)(size_t);
static void (*next_free)(void *);
__attribute__((constructor)) static void look_up(void) {
    *(void **)&next_malloc = dlsym(RTLD_NEXT, "malloc");
    *(void **)&next_free = dlsym(RTLD_NEXT, "free");
}
void *malloc(size_t size) { return next_malloc(size); }
void free(void *block) { next_free(block); }
