// Eight threads that allocate, all with one alternate signal stack, as some servers have it for a handler that ends them. A scan is made
// twenty times meanwhile; if there is an argument, a block is lost before.
#include "test.h"
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>

enum { THREADS = 8 };
static stack_t shared;
static pthread_barrier_t all;
static volatile int over;

static void *work(void *own) {
    check(sigaltstack(&shared, 0) == 0);
    pthread_barrier_wait(&all);
    pthread_t self = pthread_self();
    while (!over) {
        void *volatile block = malloc(32);
        memset(block, 1, 32);
        free(block);
        check(pthread_equal(self, pthread_self()));
    }
    return own;
}
static NOINLINE void lose(void) { memset(malloc(1337), 0, 1337); }

int main(int count, char **words) {
    (void)words;
    shared.ss_size = 64 << 10;
    shared.ss_sp = mmap(0, shared.ss_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(shared.ss_sp != MAP_FAILED && pthread_barrier_init(&all, 0, THREADS + 1) == 0);
    if (count > 1) below(lose);
    pthread_t threads[THREADS];
    for (long i = 0; i < THREADS; i++) check(pthread_create(&threads[i], 0, work, (void *)i) == 0);
    pthread_barrier_wait(&all);
    for (int i = 0; i < 20; i++) scan();
    over = 1;
    struct sigaction stops;
    check(sigaction(58, 0, &stops) == 0 && stops.sa_handler != SIG_DFL && !(stops.sa_flags & SA_ONSTACK));
    for (long i = 0; i < THREADS; i++) {
        void *own;
        check(pthread_join(threads[i], &own) == 0 && own == (void *)i);
    }
    return 0;
}
