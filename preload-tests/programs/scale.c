// As many threads and as deep a stack as a program may come to; with "keep" blocks of 1337 bytes are all kept, with "lose" one of them
// is lost.
#include "test.h"
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/resource.h>

typedef void *volatile Slot;

static int lost;
static NOINLINE void *make(void) { return memset(malloc(1337), 0, 1337); }

// A thousand threads that wait. Each has a block on its stack, of which main holds the address with all bits turned.
enum { MANY = 1000 };
static uintptr_t hidden[MANY];
static int ready[2], never[2];
static NOINLINE void make_all(void) {
    for (int i = 0; i < MANY; i++) hidden[i] = ~(uintptr_t)make();
}
static void *waiting_thread(void *number) {
    Slot local = (void *)~hidden[(uintptr_t)number];
    if (lost && (uintptr_t)number == MANY / 2) local = 0;
    scrub_registers();
    char byte;
    check(write(ready[1], "", 1) == 1 && read(never[0], &byte, 1) == 1);
    return local;
}
static void many(void) {
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    check(pthread_attr_setstacksize(&attributes, 64 << 10) == 0);
    below(make_all);
    for (uintptr_t i = 0; i < MANY; i++) {
        pthread_t thread;
        check(pthread_create(&thread, &attributes, waiting_thread, (void *)i) == 0);
    }
    char byte;
    for (int i = 0; i < MANY; i++) check(read(ready[0], &byte, 1) == 1);
    scan();
    scan();
}

// Threads that come and go until there were 5,000 of them and twenty scans.
enum { ENOUGH = 5000, SCANS = 20 };
static int created, over;
static void *short_thread(void *block) {
    free(malloc(500));
    free(block);
    return 0;
}
static void *creating_thread(void *_) {
    while (__atomic_load_n(&created, __ATOMIC_SEQ_CST) < ENOUGH || !__atomic_load_n(&over, __ATOMIC_SEQ_CST)) {
        pthread_t threads[4];
        for (int i = 0; i < 4; i++) check(pthread_create(&threads[i], 0, short_thread, make()) == 0);
        for (int i = 0; i < 4; i++) check(pthread_join(threads[i], 0) == 0);
        __atomic_add_fetch(&created, 4, __ATOMIC_SEQ_CST);
    }
    return _;
}
static NOINLINE void lose(void) { make(); }
static void created_and_joined(void) {
    pthread_t threads[2];
    if (lost) below(lose);
    for (int i = 0; i < 2; i++) check(pthread_create(&threads[i], 0, creating_thread, 0) == 0);
    for (int scans = 0; scans < SCANS; scans++) {
        // Each scan finds others than the last one.
        int before = __atomic_load_n(&created, __ATOMIC_SEQ_CST);
        while (__atomic_load_n(&created, __ATOMIC_SEQ_CST) < before + ENOUGH / SCANS) sched_yield();
        scan();
    }
    __atomic_store_n(&over, 1, __ATOMIC_SEQ_CST);
    for (int i = 0; i < 2; i++) check(pthread_join(threads[i], 0) == 0);
    char line[32];
    snprintf(line, sizeof line, "%d", created);
    say(line);
}

// A hundred thousand frames. Block and scans are the innermost one's; the address is on the frame that the first argument names.
static int outermost_keeps;
static Slot *place;
static NOINLINE void put(void) { *place = make(); }
static NOINLINE void innermost(void) {
    Slot local = 0;
    if (!outermost_keeps) place = &local;
    below(put);
    if (lost) *place = 0;
    scan();
    scan();
    (void)local;
}
static NOINLINE void recurse(int frames) {
    volatile char room[80];
    room[0] = 0;
    if (frames == 0) innermost();
    else recurse(frames - 1);
    room[1] = room[0];
}
static NOINLINE void *outermost(void *_) {
    Slot local = 0;
    place = &local;
    recurse(100000);
    (void)local;
    return _;
}
static void deep(int of_thread) {
    enum { STACK = 64 << 20 };
    if (!of_thread) {
        struct rlimit limit;
        check(getrlimit(RLIMIT_STACK, &limit) == 0);
        limit.rlim_cur = STACK;
        check(setrlimit(RLIMIT_STACK, &limit) == 0);
        outermost(0);
        return;
    }
    pthread_t thread;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    check(pthread_attr_setstacksize(&attributes, STACK) == 0);
    check(pthread_create(&thread, &attributes, outermost, 0) == 0 && pthread_join(thread, 0) == 0);
}

int main(int count, char **words) {
    check(count >= 3 && pipe(ready) == 0 && pipe(never) == 0);
    const char *what = words[1];
    lost = is(words[2], "lose");
    outermost_keeps = count > 3 && is(words[3], "outermost");
    if (is(what, "many")) many();
    else if (is(what, "created")) created_and_joined();
    else if (is(what, "deep")) deep(0);
    else if (is(what, "deep_thread")) deep(1);
    else return 96;
    exit(0);
}
