// Threads come and go in four threads at a time, each with an alternate signal stack of its own, often where another one's was before. None
// is shared, so that the signal by which threads are stopped keeps to such stacks.
#include "test.h"
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>

enum { SIZE = 64 << 10, MAKERS = 4, ROUNDS = 500 };

static void *short_thread(void *_) {
    stack_t own = {.ss_size = SIZE}, none = {.ss_flags = SS_DISABLE};
    own.ss_sp = mmap(0, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(own.ss_sp != MAP_FAILED && sigaltstack(&own, 0) == 0);
    void *volatile block = malloc(10);
    free(block);
    check(sigaltstack(&none, 0) == 0 && munmap(own.ss_sp, SIZE) == 0);
    return _;
}
static void *maker(void *_) {
    for (int i = 0; i < ROUNDS; i++) {
        pthread_t thread;
        check(pthread_create(&thread, 0, short_thread, 0) == 0 && pthread_join(thread, 0) == 0);
    }
    return _;
}

int main(void) {
    pthread_t makers[MAKERS];
    for (int i = 0; i < MAKERS; i++) check(pthread_create(&makers[i], 0, maker, 0) == 0);
    for (int i = 0; i < MAKERS; i++) check(pthread_join(makers[i], 0) == 0);
    struct sigaction stops;
    check(sigaction(58, 0, &stops) == 0 && stops.sa_handler != SIG_DFL && stops.sa_flags & SA_ONSTACK);
    return 0;
}
