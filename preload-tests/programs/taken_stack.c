// Threads have ended, and libc's own thread for timers has the stack of one of them, which is joined. A scan by another one; a block of
// 1337 bytes is lost or kept.
#include "test.h"
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>

static void *volatile kept;
static volatile int ticked;
static NOINLINE void fill(void) { kept = calloc(1, 1337); }
static void *ends(void *unused) {
    free(malloc(100));
    return unused;
}
static void tick(union sigval _) { ticked = 1; }
static void *scans(void *unused) {
    scan();
    scan();
    return unused;
}

int main(int count, char **words) {
    check(count == 2);
    // As small as that one's, so that libc's store of stacks has it for it.
    pthread_attr_t small;
    pthread_t thread;
    check(pthread_attr_init(&small) == 0 && pthread_attr_setstacksize(&small, PTHREAD_STACK_MIN) == 0);
    for (size_t i = 0; i < 3; i++) {
        check(pthread_attr_setguardsize(&small, i << 16) == 0);
        check(pthread_create(&thread, &small, ends, 0) == 0 && pthread_join(thread, 0) == 0);
    }
    struct sigevent event = {.sigev_notify = SIGEV_THREAD, .sigev_notify_function = tick};
    timer_t timer;
    struct itimerspec soon = {.it_value.tv_nsec = 1000000};
    check(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0 && timer_settime(timer, 0, &soon, 0) == 0);
    while (!ticked) {
    }
    below(fill);
    if (is(words[1], "lose")) kept = 0;
    check(pthread_create(&thread, 0, scans, 0) == 0 && pthread_join(thread, 0) == 0);
    return 0;
}
