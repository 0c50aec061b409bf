// Ways in which a program ends after it has lost a block: argv[1] names the way.
#include "case.h"
#include <csignal>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>

static NOINLINE void lose_now(void) { make(); }
static void lose(void) {
    below(lose_now);
    scrub();
}
static void by_exit(void) { exit(0); }
static void by__exit(void) { _exit(0); }
static void by_quick_exit(void) { quick_exit(0); }
static void by_raw_call(void) { syscall(SYS_exit_group, 0); }
static void by_past_libc(void) {
#ifdef __x86_64__
    long number = SYS_exit_group;
    __asm__ volatile("syscall" : "+a"(number) : "D"(0L) : "rcx", "r11", "memory");
#else
    register long x8 __asm__("x8") = SYS_exit_group, x0 __asm__("x0") = 0;
    __asm__ volatile("svc 0" : : "r"(x8), "r"(x0) : "memory");
#endif
}
static void by_abort(void) { abort(); }
static void by_fault(void) { *(volatile int *)8 = 1; }
static NOINLINE int overflow(volatile char *above) {
    volatile char room[4096];
    room[0] = *above;
    return overflow(room) + room[0];
}
static void by_overflow(void) {
    volatile char start = 0;
    overflow(&start);
}
static void by_signal(void) { raise(SIGTERM); }
static void by_profiling(void) {
    struct itimerval soon = {};
    soon.it_value.tv_usec = 1000;
    check(setitimer(ITIMER_PROF, &soon, 0) == 0);
    for (volatile int i = 0;; i = i + 1) {
    }
}
static void by_real_time(void) { raise(SIGRTMIN + 3); }
static void jailed(void) {
    if (getuid() != 0) not_here("not run by root");
    check(mkdir("jail", 0700) == 0 && chroot("jail") == 0 && chdir("/") == 0);
    exit(0);
}
static void by_kill(void) { raise(SIGKILL); }
static void handler(int) { _exit(0); }
static void by_handler(void) {
    signal(SIGTERM, handler);
    raise(SIGTERM);
}
static void by_exception(void) { throw 1; }
static void *exiting_thread(void *) { exit(0); }
static void by_thread(void) {
    pthread_t thread;
    pthread_create(&thread, 0, exiting_thread, 0);
    pthread_join(thread, 0);
}
static void *last_thread(void *) {
    // Main's task stays, dead, until the process ends.
    char text[256] = "", path[64];
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", getpid());
    while (!strstr(text, ") Z ")) {
        int stat = open(path, O_RDONLY);
        if (read(stat, text, sizeof text - 1) < 0) break;
        close(stat);
        sched_yield();
    }
    return 0;
}
static void by_last_thread(void) {
    pthread_t thread;
    pthread_create(&thread, 0, last_thread, 0);
    pthread_exit(0);
}
// Circumstances: the program returns from main in each.
static void by_trap(void) { __builtin_trap(); }
static void closed_descriptors(void) {
    for (int fd = 0; fd < 1024; fd++) close(fd);
    exit(0);
}
static void no_dump(void) {
    check(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0);
    exit(0);
}
static void other_user(void) {
    if (getuid() != 0) not_here("not run by root");
    check(setgid(65534) == 0 && setuid(65534) == 0);
    exit(0);
}
static void sandbox(void) {
    const auto denied = SECCOMP_RET_ERRNO | 1;
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ptrace, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_process_vm_readv, 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_execve, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, denied),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
    check(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) not_here("cannot be put into a sandbox here");
    exit(0);
}
static void traced(void) {
    pid_t parent = getpid();
    if (fork() == 0) {
        if (ptrace(PTRACE_SEIZE, parent, 0, 0) != 0) syscall(SYS_exit_group, 1);
        check(write(ready[1], "", 1) == 1);
        int status;
        while (waitpid(parent, &status, __WALL) == parent && WIFSTOPPED(status)) {
            int number = WSTOPSIG(status);
            ptrace(PTRACE_CONT, parent, 0, status >> 16 || number == SIGTRAP ? 0 : number);
        }
        syscall(SYS_exit_group, 0);
    }
    wait_ready();
    lose();
    exit(0);
}
static void by_exec(void) { execl("/bin/true", "true", (char *)0); }

struct ending {
    const char *name;
    void (*end)(void);
};
static const ending endings[] = {
    {"exit", by_exit},
    {"_exit", by__exit},
    {"quick_exit", by_quick_exit},
    {"raw_call", by_raw_call},
    {"past_libc", by_past_libc},
    {"abort", by_abort},
    {"fault", by_fault},
    {"overflow", by_overflow},
    {"signal", by_signal},
    {"profiling", by_profiling},
    {"real_time", by_real_time},
    {"kill", by_kill},
    {"handler", by_handler},
    {"exception", by_exception},
    {"thread", by_thread},
    {"last_thread", by_last_thread},
    {"trap", by_trap},
    {"exec", by_exec},
    {"closed_descriptors", closed_descriptors},
    {"no_dump", no_dump},
    {"other_user", other_user},
    {"jailed", jailed},
    {"sandbox", sandbox},
    {"traced", traced},
};
int main(int count, char **words) {
    check(count >= 2 && pipe(ready) == 0);
    say("ends");
    if (is(words[1], "fork")) {
        pid_t child = fork();
        if (child == 0) {
            lose();
            exit(0);
        }
        waitpid(child, 0, 0);
        return 0;
    }
    if (is(words[1], "fork__exit")) {
        pid_t child = fork();
        if (child == 0) {
            lose();
            _exit(0);
        }
        waitpid(child, 0, 0);
        return 0;
    }
    if (is(words[1], "daemon")) {
        if (fork() != 0) _exit(0);
        setsid();
        if (fork() != 0) _exit(0);
        lose();
        return 0;
    }
    if (is(words[1], "return")) {
        lose();
        return 0;
    }
    for (const ending &ending : endings) {
        if (is(words[1], ending.name)) {
            // The debugger is a fork, which would have it, too.
            if (ending.end != traced) lose();
            ending.end();
        }
    }
    return 96;
}
