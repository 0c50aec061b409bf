// A stack is used up, or a signal ends the program on one: what the first argument names. Loses or keeps one block of 1337 bytes.
#include "test.h"
#include <pthread.h>
#include <signal.h>
#include <stdint.h>

static uintptr_t hidden;
static NOINLINE void make(void) { hidden = ~(uintptr_t)malloc(1337); }
static NOINLINE void lose(void) { memset(malloc(1337), 0, 1337); }
static NOINLINE int use_up(volatile char *above) {
    volatile char room[1000];
    room[0] = above[0];
    return use_up(room) + room[0];
}
static void *use_up_here(void *volatile kept) {
    volatile char start = 0;
    use_up(&start);
    return kept;
}
static NOINLINE void leave_below(void) {
    volatile char room[8000];
    void *volatile local = (void *)~hidden;
    room[0] = local != 0;
}

static void *volatile handled_at;
static void handler(int _) {
    char here;
    handled_at = &here;
    (void)_;
}
// Whether a handler that asks for the alternate stack runs on the caller's own.
static void *handled_here(void *_) {
    char here;
    check(raise(SIGUSR1) == 0);
    check(labs((char *)handled_at - &here) < 20000);
    return _;
}
static void in_thread(void *(*what)(void *), void *argument) {
    pthread_t thread;
    check(pthread_create(&thread, 0, what, argument) == 0);
    pthread_join(thread, 0);
}
// Nobody has one but whom the program has given one.
static void *told(void *memory) {
    stack_t now, mine = {.ss_sp = memory, .ss_size = 20000}, none = {.ss_flags = SS_DISABLE};
    memset(&now, 0xa5, sizeof now);
    check(sigaltstack(0, &now) == 0 && now.ss_flags == SS_DISABLE && now.ss_sp == 0 && now.ss_size == 0);
    check(sigaltstack(&mine, &now) == 0 && now.ss_flags == SS_DISABLE && now.ss_sp == 0);
    check(sigaltstack(&none, &now) == 0 && now.ss_flags == 0 && now.ss_sp == memory && now.ss_size == 20000);
    check(sigaltstack(0, &now) == 0 && now.ss_flags == SS_DISABLE && now.ss_sp == 0);
    // One structure for both.
    now = mine;
    check(sigaltstack(&now, &now) == 0 && now.ss_flags == SS_DISABLE && now.ss_sp == 0);
    now = none;
    check(sigaltstack(&now, &now) == 0 && now.ss_flags == 0 && now.ss_sp == memory);
    return 0;
}

int main(int count, char **words) {
    check(count == 2);
    const char *what = words[1];
    if (is(what, "main")) {
        below(lose);
        use_up_here(0);
    }
    if (is(what, "thread")) {
        below(lose);
        in_thread(use_up_here, 0);
    }
    if (is(what, "kept by main")) use_up_here(memset(malloc(1337), 0, 1337));
    if (is(what, "kept by a thread")) in_thread(use_up_here, memset(malloc(1337), 0, 1337));
    if (is(what, "below")) {
        below(make);
        leave_below();
        hidden = 0;
        scrub_registers();
        // By the kernel alone: no frame of libc's lies there.
        *(volatile int *)8 = 1;
    }
    if (is(what, "in the frame")) {
        below(make);
        void *volatile local = (void *)~hidden;
        hidden = 0;
        scrub_registers();
        *(volatile int *)8 = 1;
        check(local != 0);
    }
    if (is(what, "told")) {
        char memory[20000];
        told(memory);
        in_thread(told, memory);
    }
    if (is(what, "asked for")) {
        struct sigaction mine = {.sa_handler = handler, .sa_flags = SA_ONSTACK};
        check(sigaction(SIGUSR1, &mine, 0) == 0);
        handled_here(0);
        in_thread(handled_here, 0);
    }
    return 0;
}
