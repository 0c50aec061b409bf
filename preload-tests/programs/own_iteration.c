// A program with a dl_iterate_phdr of its own, which allocates and calls the real one (as databases do that count on it).
#include "test.h"
#include <dlfcn.h>
#include <link.h>
#include <pthread.h>

static int calls;
static void *volatile kept;
int dl_iterate_phdr(int (*callback)(struct dl_phdr_info *, size_t, void *), void *data) {
    calls++;
    free(kept);
    kept = malloc(300);
    int (*real)(int (*)(struct dl_phdr_info *, size_t, void *), void *) = dlsym(RTLD_NEXT, "dl_iterate_phdr");
    return real(callback, data);
}
static NOINLINE void lose(void) { memset(malloc(1337), 0, 1337); }
int main(void) {
    for (int i = 0; i < 1000; i++) free(malloc((size_t)i));
    below(lose);
    scan();
    // Nobody but the program itself comes here, and it has not.
    check(calls == 0);
    return 0;
}
