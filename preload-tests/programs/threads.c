// Many threads, with what they keep and lose.
#include "test.h"
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/time.h>
#include <time.h>

static NOINLINE void *keep(void) { return memset(malloc(500), 0, 500); }
static NOINLINE void lose(void) { memset(malloc(1337), 0, 1337); }
static sem_t ready;
static int never[2];
static __thread void *volatile in_tls;

// Each keeps a block on its stack and one in its storage, loses one, and waits or runs for ever.
static void *holding_thread(void *how) {
    void *volatile block = 0;
    in_tls = keep();
    below(lose);
    block = keep();
    // The address of its chunk lies in the last word of the lost block before it.
    scrub();
    sem_post(&ready);
    if (how) {
        for (volatile int i = 0;; i++) {
        }
    }
    char byte;
    check(read(never[0], &byte, 1) == 1);
    return block;
}
static void *full_block_thread(void *how) {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, 0);
    return holding_thread(how);
}
static void start(int number, void *(*routine)(void *), void *how) {
    for (int i = 0; i < number; i++) {
        pthread_t thread;
        check(pthread_create(&thread, 0, routine, how) == 0);
        pthread_detach(thread);
    }
    for (int i = 0; i < number; i++) {
        while (sem_wait(&ready) != 0) {
        }
    }
}

static void *short_thread(void *argument) {
    for (int i = 0; i < 50; i++) free(malloc((size_t)i * 10));
    free(argument);
    return 0;
}
static void short_threads(int number) {
    for (int i = 0; i < number; i++) {
        pthread_t threads[8];
        for (int k = 0; k < 8; k++) check(pthread_create(&threads[k], 0, short_thread, keep()) == 0);
        for (int k = 0; k < 8; k++) pthread_join(threads[k], 0);
    }
}

// What a thread has returned waits for its join.
static void *returning_thread(void *_) {
    (void)_;
    return keep();
}
static void results(int number) {
    pthread_t threads[100];
    for (int i = 0; i < number; i++) check(pthread_create(&threads[i], 0, returning_thread, 0) == 0);
    char path[64] = "";
    struct timespec moment = {.tv_nsec = 1000000};
    // Until all have ended, as far as the kernel is concerned.
    for (;;) {
        FILE *status = fopen("/proc/self/status", "r");
        char line[200];
        int alive = 0;
        while (fgets(line, sizeof line, status)) sscanf(line, "Threads: %d", &alive);
        fclose(status);
        if (alive == 1) break;
        nanosleep(&moment, 0);
    }
    scan();
    scan();
    for (int i = 0; i < number; i++) {
        void *block;
        pthread_join(threads[i], &block);
        free(block);
    }
    scan();
}

// Hands blocks from thread to thread, while scans go on: a pointer is now on a stack, now in a register, now in a cell.
static void *volatile cells[64];
static volatile int over;
static void *passing_thread(void *seed) {
    unsigned number = (unsigned)(uintptr_t)seed;
    void *mine = keep();
    while (!over) {
        number = number * 1664525 + 1013904223;
        mine = __atomic_exchange_n(&cells[number >> 26], mine, __ATOMIC_SEQ_CST);
        if (!mine) mine = keep();
        if (number % 16 == 0) mine = realloc(mine, 100 + number % 3000);
        if (number % 64 == 1) {
            free(mine);
            mine = keep();
        }
    }
    free(mine);
    return 0;
}
static void pass(int scans) {
    pthread_t threads[4];
    for (uintptr_t i = 0; i < 4; i++) pthread_create(&threads[i], 0, passing_thread, (void *)(i + 1));
    for (int i = 0; i < scans; i++) {
        scan();
        for (int k = 0; k < 1000; k++) free(malloc(100));
    }
    over = 1;
    for (int i = 0; i < 4; i++) pthread_join(threads[i], 0);
    for (int i = 0; i < 64; i++) free(cells[i]);
}

// Threads come and go while scans go on.
static void *churning_thread(void *_) {
    (void)_;
    while (!over) short_threads(1);
    return 0;
}
static void churn(int scans) {
    pthread_t threads[3];
    for (int i = 0; i < 3; i++) pthread_create(&threads[i], 0, churning_thread, 0);
    for (int i = 0; i < scans; i++) scan();
    over = 1;
    for (int i = 0; i < 3; i++) pthread_join(threads[i], 0);
}

// Handlers that allocate, ten thousand times a second, while scans go on.
static volatile int handled;
static void *volatile kept_by_handler[16];
static void handler(int _) {
    (void)_;
    int place = ++handled & 15;
    free(kept_by_handler[place]);
    kept_by_handler[place] = malloc(100 + (size_t)handled % 1000);
}
static void *computing_thread(void *_) {
    (void)_;
    volatile double x = 0;
    while (!over) x += 0.5;
    return 0;
}
static void handle(int scans) {
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &action, 0);
    pthread_t threads[2];
    sigset_t alarm;
    sigemptyset(&alarm);
    sigaddset(&alarm, SIGALRM);
    // Only one thread takes it: malloc in a handler is allowed only where it interrupts no malloc.
    pthread_create(&threads[0], 0, computing_thread, 0);
    pthread_sigmask(SIG_BLOCK, &alarm, 0);
    pthread_create(&threads[1], 0, computing_thread, 0);
    struct itimerval often = {{0, 100}, {0, 100}};
    setitimer(ITIMER_REAL, &often, 0);
    while (handled < 100) sched_yield();
    for (int i = 0; i < scans; i++) scan();
    int seen = handled;
    while (handled < seen + 100) sched_yield();
    struct itimerval none = {0};
    setitimer(ITIMER_REAL, &none, 0);
    over = 1;
    for (int i = 0; i < 2; i++) pthread_join(threads[i], 0);
    for (int i = 0; i < 16; i++) free(kept_by_handler[i]);
}

static void *attributes_thread(void *_) {
    (void)_;
    for (int i = 0; i < 300; i++) {
        pthread_attr_t attributes;
        check(pthread_getattr_np(pthread_self(), &attributes) == 0);
        pthread_attr_destroy(&attributes);
        free(malloc(100));
    }
    return 0;
}
static void *cancelled_thread(void *_) {
    (void)_;
    void *block = keep();
    pthread_cleanup_push(free, block);
    sem_post(&ready);
    char byte;
    check(read(never[0], &byte, 1) == 1);
    pthread_cleanup_pop(1);
    return 0;
}
static void *leaving_thread(void *_) {
    (void)_;
    pthread_exit(keep());
}

int main(int count, char **words) {
    check(count >= 3 && sem_init(&ready, 0, 0) == 0 && pipe(never) == 0);
    int number = atoi(words[2]);
    const char *what = words[1];
    pthread_t threads[100];
    void *result;
    if (is(what, "waiting")) start(number, holding_thread, 0);
    else if (is(what, "running")) start(number, holding_thread, "run");
    else if (is(what, "blocking")) start(number, full_block_thread, 0);
    else if (is(what, "blocking_and_running")) start(number, full_block_thread, "run");
    else if (is(what, "short")) short_threads(number);
    else if (is(what, "results")) results(number);
    else if (is(what, "pass")) pass(number);
    else if (is(what, "churn")) churn(number);
    else if (is(what, "handle")) handle(number);
    else if (is(what, "attributes")) {
        attributes_thread(0);
        for (int i = 0; i < number; i++) pthread_create(&threads[i], 0, attributes_thread, 0);
        for (int i = 0; i < number; i++) pthread_join(threads[i], 0);
    } else if (is(what, "cancel")) {
        for (int i = 0; i < number; i++) {
            pthread_create(&threads[0], 0, cancelled_thread, 0);
            sem_wait(&ready);
            pthread_cancel(threads[0]);
            pthread_join(threads[0], &result);
            check(result == PTHREAD_CANCELED);
            pthread_create(&threads[0], 0, leaving_thread, 0);
            pthread_join(threads[0], &result);
            free(result);
        }
    } else return 96;
    exit(0);
}
