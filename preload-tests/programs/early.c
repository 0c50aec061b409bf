// Uses blocks that a library has taken before leakscan began.
#include "test.h"
#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
static char *of(const char *name) { return *(char **)dlsym(RTLD_DEFAULT, name); }
static void filled_with(char *block, size_t size, char byte) {
    for (size_t i = 0; i < size; i++) check(block[i] == byte);
}
static NOINLINE void use(void) {
    char *small = of("early_small"), *large = of("early_large"), *spare = of("early_spare");
    check(malloc_usable_size(small) >= 100 && malloc_usable_size(large) >= 300000);
    small = realloc(small, 5000);
    filled_with(small, 100, 1);
    large = realloc(large, 600000);
    filled_with(large, 300000, 2);
    large = realloc(large, 20);
    filled_with(large, 20, 2);
    check(realloc(spare, 0) == NULL);
    free(small);
    free(large);
    errno = 0;
    check(malloc((size_t)1 << 60) == NULL && errno == ENOMEM);
    errno = 0;
    check(calloc((size_t)1 << 40, (size_t)1 << 40) == NULL && errno == ENOMEM);
    memset(malloc(1337), 0, 1337);
    *(char **)dlsym(RTLD_DEFAULT, "early_small") = NULL;
    *(char **)dlsym(RTLD_DEFAULT, "early_large") = NULL;
    *(char **)dlsym(RTLD_DEFAULT, "early_spare") = NULL;
}
int main(void) {
    below(use);
    return 0;
}
