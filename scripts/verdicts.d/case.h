// What the cases share: making a block, hiding its pointer, and asking the tool that watches for its verdict.
#pragma once
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "../../preload-tests/programs/test.h"
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <valgrind/memcheck.h>

#ifdef __cplusplus
extern "C" {
#endif
extern int __lsan_do_recoverable_leak_check(void) __attribute__((weak));
#ifdef __cplusplus
}
#endif

typedef void *volatile Slot;

// Which of the two polarities runs: the place is filled, or it is filled and then cleared.
static int lost;

static NOINLINE void *make(void) {
    void *block = malloc(1337);
    memset(block, 0, 1337);
    // A compiler that sees nobody use the block would leave it out.
    __asm__ volatile("" : "+r"(block) : : "memory");
    return block;
}

static Slot *target;
static NOINLINE void put(void) { *target = make(); }
// Puts a new block's address there, and nowhere else.
static __attribute__((unused)) void keep_at(Slot *place) {
    target = place;
    below(put);
    target = 0;
    if (lost) *place = 0;
}
// The address with all bits turned, so that no scan takes it for a pointer; of the lost one nothing is left.
static uintptr_t hidden;
static NOINLINE void put_hidden(void) { hidden = ~(uintptr_t)make(); }
static __attribute__((unused)) void hide(void) {
    below(put_hidden);
    if (lost) hidden = ~(uintptr_t)0;
}
#define HIDDEN ((void *)~hidden)

// The tool gives its verdict here, and the program ends without another.
static __attribute__((unused, noreturn)) void look_as_it_is(void) {
    if (__lsan_do_recoverable_leak_check) {
        __lsan_do_recoverable_leak_check();
    } else if (leakscan_is_loaded()) {
        // What two scans in a row find is confirmed.
        check(LEAKSCAN_SCAN() == 1 && LEAKSCAN_SCAN() == 1);
    } else {
        VALGRIND_DO_LEAK_CHECK;
        VALGRIND_PRINTF("looked\n");
    }
    say("looked");
    syscall(SYS_exit_group, 0);
    __builtin_unreachable();
}
// The point at which the place holds: the same, with nothing of the past on the stack and in registers.
static __attribute__((unused, noreturn)) void look(void) {
    scrub();
    look_as_it_is();
}

// Until the process has so many threads.
static __attribute__((unused)) void wait_for_threads(unsigned long count) {
    struct stat tasks;
    while (stat("/proc/self/task", &tasks) == 0 && tasks.st_nlink - 2 != count) sched_yield();
}

// What this machine or this kernel does not have.
static __attribute__((unused, noreturn)) void not_here(const char *why) {
    say(why);
    syscall(SYS_exit_group, 77);
    __builtin_unreachable();
}

// Threads: each says when it is ready, and waits for ever.
static int ready[2], never[2];
static NOINLINE __attribute__((unused)) void park(void) {
    check(write(ready[1], "", 1) == 1);
    char byte;
    check(read(never[0], &byte, 1) == 1);
}
static __attribute__((unused)) void wait_ready(void) {
    char byte;
    check(read(ready[0], &byte, 1) == 1);
}
static __attribute__((unused)) void start(void *(*routine)(void *)) {
    pthread_t thread;
    check(pthread_create(&thread, 0, routine, 0) == 0);
    wait_ready();
}
static __attribute__((unused)) void start_and_join(void *(*routine)(void *)) {
    pthread_t thread;
    check(pthread_create(&thread, 0, routine, 0) == 0);
    pthread_join(thread, 0);
}

struct choice {
    const char *name;
    void (*run)(void);
};
static __attribute__((unused)) void run_case(int count, char **words, const struct choice *choices, size_t number) {
    check(count >= 3 && pipe(ready) == 0 && pipe(never) == 0);
    lost = is(words[2], "lost");
    for (size_t i = 0; i < number; i++) {
        if (is(words[1], choices[i].name)) {
            choices[i].run();
            return;
        }
    }
    syscall(SYS_exit_group, 96);
}
// A program of which the tool's verdict is asked for at the point, and one of which it is the tool's own at the end.
#define MAIN_LOOKS(choices)                                                                                            \
    int main(int count, char **words) {                                                                                \
        run_case(count, words, choices, sizeof choices / sizeof *choices);                                             \
        look();                                                                                                        \
    }
#define MAIN_ENDS(choices)                                                                                             \
    int main(int count, char **words) {                                                                                \
        run_case(count, words, choices, sizeof choices / sizeof *choices);                                             \
        say("ends");                                                                                                   \
        return 0;                                                                                                      \
    }
