// Four threads that open and close two libraries (the arguments) again and again, each at its own pace.
#include "test.h"
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>

static char **libraries;

static void *open_and_close(void *number) {
    for (int i = 0; i < 3000; i++) {
        void *library = dlopen(libraries[((uintptr_t)number + (uintptr_t)i) % 2], RTLD_NOW);
        check(library);
        free(malloc(24));
        check(dlclose(library) == 0);
    }
    return 0;
}

int main(int count, char **words) {
    check(count == 3);
    libraries = words + 1;
    pthread_t threads[4];
    for (uintptr_t i = 0; i < 4; i++) check(pthread_create(&threads[i], 0, open_and_close, (void *)i) == 0);
    for (int i = 0; i < 4; i++) check(pthread_join(threads[i], 0) == 0);
    return 0;
}
