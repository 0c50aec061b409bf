// Loses one block of 1337 bytes and ends in the way that the first argument names.
#include "test.h"
#include <assert.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/time.h>
#include <stdio.h>
#include <sys/syscall.h>

static NOINLINE void lose(void) { memset(malloc(1337), 0, 1337); }
static void handler(int number) { _exit(number - SIGUSR1 + 5); }
static void *thread_that_exits(void *_) {
    (void)_;
    exit(5);
}
static void *thread_that_ends(void *_) {
    (void)_;
    return 0;
}
static struct sigaction before;
static void chain(int number, siginfo_t *info, void *context) {
    if (before.sa_flags & SA_SIGINFO) before.sa_sigaction(number, info, context);
    else signal(number, SIG_DFL), raise(number);
}
static int holds[2];
static void *thread_that_holds(void *_) {
    (void)_;
    void *volatile kept = malloc(100);
    check(kept && write(holds[1], "", 1) == 1);
    for (;;) pause();
}
// A system call that no library is asked for.
static void raw(long number, long first, long second) {
#ifdef __x86_64__
    __asm__ volatile("syscall" : "+a"(number) : "D"(first), "S"(second) : "rcx", "r11", "memory");
#else
    register long x8 __asm__("x8") = number, x0 __asm__("x0") = first, x1 __asm__("x1") = second;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1) : "memory");
#endif
}
static void *thread_that_scans(void *_) {
    (void)_;
    char path[64], state[512] = "";
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)getpid());
    // Until the first thread is a zombie.
    while (!strstr(state, ") Z")) {
        sched_yield();
        FILE *file = fopen(path, "r");
        check(file && fgets(state, sizeof state, file));
        fclose(file);
    }
    scan();
    return 0;
}
static void second_exit(void) { _exit(5); }
static sigjmp_buf back;
static void jump_back(int _) {
    (void)_;
    siglongjmp(back, 1);
}

int main(int count, char **words) {
    check(count >= 2);
    const char *way = words[1];
    // A scan of the living program first.
    if (count > 2) scan();
    printf("by %s\n", way);
    fflush(stdout);
    below(lose);
    if (is(way, "return")) return 5;
    if (is(way, "exit")) exit(5);
    if (is(way, "_exit")) _exit(5);
    if (is(way, "_Exit")) _Exit(5);
    if (is(way, "quick_exit")) quick_exit(5);
    if (is(way, "exit_group")) syscall(SYS_exit_group, 5);
    if (is(way, "past_libc")) raw(SYS_exit_group, 5, 0);
    if (is(way, "kill_past_libc")) raw(SYS_kill, getpid(), SIGKILL);
    if (is(way, "abort")) abort();
    if (is(way, "abort_and_back")) {
        signal(SIGABRT, jump_back);
        if (!sigsetjmp(back, 1)) abort();
        return 0;
    }
    if (is(way, "segv")) raise(SIGSEGV);
    if (is(way, "fault")) *(volatile int *)8 = 1;
    if (is(way, "term")) raise(SIGTERM);
    if (is(way, "timer")) {
        struct itimerval soon = {.it_value.tv_usec = 1000};
        check(setitimer(ITIMER_PROF, &soon, 0) == 0);
        for (;;) {
        }
    }
    if (is(way, "real_time")) raise(SIGRTMIN);
    if (is(way, "last_real_time")) raise(SIGRTMAX);
    if (is(way, "raise_kill")) raise(SIGKILL);
    if (is(way, "kill")) kill(getpid(), SIGKILL);
    if (is(way, "pipe")) {
        int ends[2];
        check(pipe(ends) == 0 && close(ends[0]) == 0);
        check(write(ends[1], "", 1) == 1);
    }
    if (is(way, "default_again")) {
        // No handler but the program's own is ever seen, whichever function tells.
        struct sigaction mine = {.sa_handler = handler}, old;
        for (int number = 1; number <= SIGRTMAX; number++) {
            // (Those between are libc's; 58 is the one by which a scan is asked for.)
            if (number == SIGKILL || number == SIGSTOP || number > 31 && number < SIGRTMIN || number == 58) continue;
            memset(&old, 0xa5, sizeof old);
            check(sigaction(number, 0, &old) == 0 && old.sa_handler == SIG_DFL && old.sa_flags == 0);
            check(sigismember(&old.sa_mask, SIGINT) == 0);
            check(signal(number, handler) == SIG_DFL && signal(number, SIG_DFL) == handler);
            check(signal(number, SIG_IGN) == SIG_DFL && sigaction(number, &mine, &old) == 0 && old.sa_handler == SIG_IGN);
            mine.sa_handler = SIG_DFL;
            check(sigaction(number, &mine, &old) == 0 && old.sa_handler == handler);
            mine.sa_handler = handler;
        }
        check(signal(SIGKILL, handler) == SIG_ERR && sigaction(SIGSTOP, &mine, 0) == -1 && sigaction(1000, 0, &old) == -1);
        // One structure for both: the new action is read before the old one is written.
        mine.sa_handler = SIG_DFL;
        check(sigaction(SIGHUP, &mine, &mine) == 0);
        raise(SIGHUP);
    }
    if (is(way, "system_v")) {
        check(__sysv_signal(SIGTERM, handler) == SIG_DFL && __sysv_signal(SIGTERM, SIG_DFL) == handler);
        check(__sysv_signal(SIGTERM, SIG_ERR) == SIG_ERR && __sysv_signal(0, handler) == SIG_ERR);
        raise(SIGTERM);
    }
    if (is(way, "called")) {
        // libc's oldest name, which is not ours: what it gives may be called with anything.
        void (*old)(int, long) = (void (*)(int, long))sigset(SIGTERM, handler);
        check(old != (void *)SIG_ERR);
        if (old) old(SIGTERM, 1);
        else raise(SIGTERM);
    }
    if (is(way, "assert")) assert(count == 0);
    if (is(way, "trap")) __builtin_trap();
    if (is(way, "chained")) {
        struct sigaction mine = {.sa_sigaction = chain, .sa_flags = SA_SIGINFO};
        check(sigaction(SIGTERM, &mine, &before) == 0);
        raise(SIGTERM);
    }
    if (is(way, "alarm")) {
        alarm(1);
        for (;;) pause();
    }
    if (is(way, "ignored")) {
        signal(SIGTERM, SIG_IGN);
        raise(SIGTERM);
        return 5;
    }
    if (is(way, "exec")) execl("/bin/sh", "sh", "-c", "exit 5", (char *)0);
    pthread_t thread;
    if (is(way, "handler")) {
        signal(SIGUSR1, handler);
        raise(SIGUSR1);
    }
    if (is(way, "thread_fault")) {
        check(pipe(holds) == 0 && pthread_create(&thread, 0, thread_that_holds, 0) == 0);
        char byte;
        check(read(holds[0], &byte, 1) == 1);
        *(volatile int *)8 = 1;
    }
    if (is(way, "thread")) {
        pthread_create(&thread, 0, thread_that_exits, 0);
        pthread_join(thread, 0);
    }
    if (is(way, "last_threads_scan")) {
        pthread_create(&thread, 0, thread_that_scans, 0);
        pthread_exit(0);
    }
    if (is(way, "last_thread")) {
        pthread_create(&thread, 0, thread_that_ends, 0);
        pthread_exit(0);
    }
    if (is(way, "exit_in_exit")) {
        atexit(second_exit);
        exit(7);
    }
    return 96;
}
