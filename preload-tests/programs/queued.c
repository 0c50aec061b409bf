// Threads are to be stopped by a signal that has to wait: what is left of it afterwards, and what there is where no signal may wait.
#include "test.h"
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>

typedef void *volatile Slot;
enum { SIGNAL = 58 };

static int ready[2], go[2];
static void *blocking_thread(void *_) {
    char byte;
    sigset_t all, ours;
    sigfillset(&all);
    check(pthread_sigmask(SIG_SETMASK, &all, 0) == 0);
    check(write(ready[1], "", 1) == 1 && read(go[0], &byte, 1) == 1);
    sigemptyset(&ours);
    sigaddset(&ours, SIGNAL);
    int waiting = 0;
    for (struct timespec none = {0, 0}; sigtimedwait(&ours, 0, &none) == SIGNAL;) waiting++;
    char line[32];
    snprintf(line, sizeof line, "%d waiting", waiting);
    say(line);
    return _;
}

static int lost;
static NOINLINE void *make(void) { return memset(malloc(1337), 0, 1337); }
static Slot *place;
static NOINLINE void put(void) { *place = make(); }
static void *holding_thread(void *_) {
    (void)_;
    Slot local = 0;
    place = &local;
    below(put);
    place = 0;
    if (lost) local = 0;
    char byte;
    check(write(ready[1], "", 1) == 1 && read(go[0], &byte, 1) == 1);
    return local;
}

int main(int count, char **words) {
    pthread_t thread;
    char byte;
    check(count == 3 && pipe(ready) == 0 && pipe(go) == 0);
    lost = is(words[2], "lose");
    int blocks = is(words[1], "blocked");
    check(pthread_create(&thread, 0, blocks ? blocking_thread : holding_thread, 0) == 0 && read(ready[0], &byte, 1) == 1);
    if (is(words[1], "none_may_wait")) {
        struct rlimit none = {0, 0};
        check(setrlimit(RLIMIT_SIGPENDING, &none) == 0);
    }
    for (int i = 0; i < 5; i++) scan();
    if (blocks) check(write(go[1], "", 1) == 1 && pthread_join(thread, 0) == 0);
    exit(0);
}
