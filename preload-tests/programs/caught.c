// A scan while a realloc is under way that has given its old block back: what the block holds (one of 1337 bytes, at its start) is in the
// new one, whose address nobody has but the thread. With "lose" the block holds nothing any more.
//
// "alternate": the thread that reallocs scans itself, in a signal handler on its alternate stack. "destructor": it is in the last of its
// destructors, where it has no note of ours any more.
#define _GNU_SOURCE
#include "test.h"
#include <dlfcn.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>

static sem_t done, go_on;
static pthread_key_t key;
static int loses;
static __thread int rounds;

static void wait_for(sem_t *event) {
    while (sem_wait(event) != 0) {
    }
}

static NOINLINE void fill(void) {
    void **block = malloc(80);
    block[0] = calloc(1, 1337);
    block[1] = 0;
    check(pthread_setspecific(key, block) == 0);
}

static void handler(int _) {
    (void)_;
    // Not what they held in the function that was interrupted.
    scrub_registers();
    LEAKSCAN_SCAN();
}
static void interrupt(void) {
    raise(SIGUSR1);
    scrub_registers();
}

static NOINLINE void move(void **block) {
    // In the way of a block that would grow in place.
    void *volatile behind = malloc(80);
    if (loses) block[0] = 0;
    free(realloc(block, 4000));
    free(behind);
}

static void destruct(void *block) {
    // As often as pthreads lets it.
    if (++rounds < 4) check(pthread_setspecific(key, block) == 0);
    else {
        void (*hold)(sem_t *, sem_t *) = (void (*)(sem_t *, sem_t *))dlsym(RTLD_DEFAULT, "hold_next_realloc");
        hold(&done, &go_on);
        move(block);
    }
}

static void *thread(void *unused) {
    below(fill);
    return unused;
}

int main(int count, char **words) {
    check(count == 3);
    loses = is(words[2], "lose");
    if (is(words[1], "alternate")) {
        static char room[256 << 10];
        stack_t alternate = {.ss_sp = room, .ss_size = sizeof room};
        struct sigaction action = {.sa_handler = handler, .sa_flags = SA_ONSTACK};
        check(sigaltstack(&alternate, 0) == 0 && sigaction(SIGUSR1, &action, 0) == 0);
        void (*call)(void (*)(void)) = (void (*)(void (*)(void)))dlsym(RTLD_DEFAULT, "call_in_next_realloc");
        check(pthread_key_create(&key, 0) == 0);
        below(fill);
        void **block = pthread_getspecific(key);
        check(pthread_setspecific(key, 0) == 0);
        call(interrupt);
        move(block);
        return 0;
    }
    pthread_t made;
    check(sem_init(&done, 0, 0) == 0 && sem_init(&go_on, 0, 0) == 0 && pthread_key_create(&key, destruct) == 0);
    check(pthread_create(&made, 0, thread, 0) == 0);
    wait_for(&done);
    scan();
    sem_post(&go_on);
    check(pthread_join(made, 0) == 0);
    return 0;
}
