// Has ptrace, clone or /proc refused in the way that the first argument names; then scans, with a block that only another
// thread's stack keeps, and one that is lost.
#include "test.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

static NOINLINE void *keep(void) { return memset(malloc(500), 0, 500); }
static NOINLINE void lose(void) { memset(malloc(1337), 0, 1337); }
static int ready[2], never[2];
static void *holding_thread(void *_) {
    (void)_;
    void *volatile block = keep();
    char byte;
    check(write(ready[1], "", 1) == 1 && read(never[0], &byte, 1) == 1);
    return block;
}

// No signal comes to it.
static void *pausing_thread(void *_) {
    check(write(ready[1], "", 1) == 1);
    pause();
    _exit(97);
    return _;
}

static void filter(unsigned call, unsigned verdict) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, verdict),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    check(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    check(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
}

// This process traces its child, as a debugger does; the child goes on with the test.
static void under_a_tracer(void) {
    pid_t child = fork();
    check(child >= 0);
    if (child == 0) {
        raise(SIGSTOP);
        return;
    }
    int status;
    check(waitpid(child, &status, WUNTRACED) == child);
    check(ptrace(PTRACE_SEIZE, child, 0, (void *)(long)PTRACE_O_TRACECLONE) == 0);
    kill(child, SIGCONT);
    for (;;) {
        pid_t thread = waitpid(-1, &status, __WALL);
        if (thread < 0) exit(99);
        if (WIFEXITED(status) && thread == child) {
            // The report is the child's.
            printf("%d %d\n", (int)child, WEXITSTATUS(status));
            fflush(stdout);
            exit(0);
        }
        if (!WIFSTOPPED(status)) continue;
        int number = WSTOPSIG(status), event = status >> 16;
        if (event == PTRACE_EVENT_STOP && (number == SIGSTOP || number == SIGTSTP)) ptrace(PTRACE_LISTEN, thread, 0, 0);
        else ptrace(PTRACE_CONT, thread, 0, (void *)(long)(event ? 0 : number));
    }
}

// A block that a timer alone knows.
static NOINLINE void give_to_timer(void) {
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR2, .sigev_value.sival_ptr = memset(malloc(555), 0, 555)};
    timer_t timer;
    check(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
}

int main(int count, char **words) {
    check(count >= 2 && pipe(ready) == 0 && pipe(never) == 0);
    const char *what = words[1];
    if (is(what, "tracer")) under_a_tracer();
    if (!is(what, "alone") && !is(what, "few_descriptors")) {
        pthread_t thread;
        char byte;
        check(pthread_create(&thread, 0, holding_thread, 0) == 0 && read(ready[0], &byte, 1) == 1);
    }
    below(lose);
    if (is(what, "not_dumpable")) check(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0);
    if (is(what, "two_users")) {
        below(give_to_timer);
        scrub();
        check(setegid(65534) == 0 && seteuid(65534) == 0 && prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0);
    }
    if (is(what, "ptrace_refused")) filter(SYS_ptrace, SECCOMP_RET_ERRNO | EPERM);
    if (is(what, "ptrace_kills")) filter(SYS_ptrace, SECCOMP_RET_KILL_PROCESS);
    if (is(what, "clone_refused")) filter(SYS_clone, SECCOMP_RET_ERRNO | EPERM);
    if (is(what, "no_processes")) {
        pthread_t thread;
        char byte;
        check(pthread_create(&thread, 0, pausing_thread, 0) == 0 && read(ready[0], &byte, 1) == 1);
        struct rlimit none = {0, 0};
        check(setrlimit(RLIMIT_NPROC, &none) == 0);
    }
    if (is(what, "no_descriptors")) {
        struct rlimit few = {8, 8};
        check(setrlimit(RLIMIT_NOFILE, &few) == 0);
        while (open("/dev/null", O_RDONLY) >= 0) {
        }
    }
    if (is(what, "few_descriptors")) {
        struct rlimit few = {64, 64};
        check(setrlimit(RLIMIT_NOFILE, &few) == 0);
        while (open("/dev/null", O_RDONLY) >= 0) {
        }
        for (int left = atoi(words[2]); left > 0; left--) close(64 - left);
    }
    if (is(what, "little_memory")) {
        struct rlimit few = {1 << 20, 1 << 20};
        check(setrlimit(RLIMIT_AS, &few) == 0);
    }
    if (is(what, "little_memory_from_now")) {
        scan();
        struct rlimit few;
        check(getrlimit(RLIMIT_AS, &few) == 0);
        few.rlim_cur = 1 << 20;
        check(setrlimit(RLIMIT_AS, &few) == 0);
    }
    if (is(what, "no_proc")) check(chroot(words[2]) == 0 && chdir("/") == 0);
    for (int i = 0; i < 6; i++) scan();
    exit(0);
}
