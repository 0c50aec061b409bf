// Puts a filter on its system calls by the way that the first argument names, and works on: allocates, starts a thread, forks, ends by exit.
// The filter ends who makes another call than that takes ("all"; with "trap" by a signal), or one of those that the second argument stands
// for: "clone"; "no_wait", which refuses to wait for children; "ptracer", by which one says who may trace; "service": whoever looks into processes, as service managers do, after which it
// becomes itself, without a further filter; "launch": the same, with one that ends who asks for its number. Under "still" hardly any call is
// left: what it has freed before serves it then, and what the heap grows by. With "asks" a thread of its own is asked about every call that opens a file.
//
// Before the filter a block of 1337 bytes is lost or kept, and one of 999 is lost behind it.
#define _GNU_SOURCE
#include "test.h"
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <malloc.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define ARRAY(what) (sizeof what / sizeof *what)
static void *volatile kept;
static NOINLINE void fill(void) { kept = calloc(1, 1337); }
static NOINLINE void lose_more(void) { calloc(1, 999); }
static void *thread(void *unused) {
    free(malloc(100));
    return unused;
}

// What libc calls for this program, and nothing else.
static const int allowed[] = {SYS_read, SYS_write, SYS_exit, SYS_exit_group, SYS_mmap, SYS_munmap, SYS_mprotect, SYS_brk, SYS_madvise,
                              SYS_futex, SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_clone3, SYS_set_robust_list, SYS_rseq, SYS_wait4};

static void *scanning(void *unused) {
    while (LEAKSCAN_SCAN()) say("scanned");
    return unused;
}

enum { SMALL = 64, MANY = 100000 };
// Blocks that are there again when they are needed, for which nobody has to ask the kernel.
static NOINLINE void work_in_what_there_is(void) {
    static void *blocks[MANY];
    mallopt(M_TRIM_THRESHOLD, 1 << 30);
    for (int i = 0; i < MANY; i++) blocks[i] = malloc(SMALL);
    for (int i = 0; i < MANY; i++) free(blocks[i]);
    memset(blocks, 0, sizeof blocks);
}

static int listener;
static void *supervise(void *unused) {
    for (;;) {
        struct seccomp_notif asked = {0};
        if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &asked) != 0) continue;
        struct seccomp_notif_resp answer = {.id = asked.id, .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE};
        ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer);
    }
    return unused;
}

static int put(const char *way, const char *what) {
    // At any alignment that an instruction may have.
    static size_t room[2 * ARRAY(allowed) + 16];
    struct sock_filter *code = (struct sock_filter *)((char *)room + 4);
    unsigned short used = 0;
    unsigned end = is(what, "trap") ? SECCOMP_RET_TRAP : SECCOMP_RET_KILL_PROCESS;
#define ADD(...) code[used++] = (struct sock_filter)__VA_ARGS__
    ADD(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)));
    if (is(what, "service")) {
        const int calls[] = {SYS_ptrace, SYS_process_vm_readv, SYS_process_vm_writev};
        for (size_t i = 0; i < ARRAY(calls); i++) {
            ADD(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)calls[i], 0, 1));
            ADD(BPF_STMT(BPF_RET | BPF_K, end));
        }
        ADD(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
    } else if (is(what, "launch")) {
        const int calls[] = {SYS_getpid, SYS_gettid, SYS_readlinkat};
        for (size_t i = 0; i < ARRAY(calls); i++) {
            ADD(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)calls[i], 0, 1));
            ADD(BPF_STMT(BPF_RET | BPF_K, end));
        }
        ADD(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
    } else if (is(what, "still")) {
        const int calls[] = {SYS_read, SYS_write, SYS_exit_group, SYS_brk};
        for (size_t i = 0; i < ARRAY(calls); i++) {
            ADD(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)calls[i], 0, 1));
            ADD(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
        }
        ADD(BPF_STMT(BPF_RET | BPF_K, end));
    } else if (is(what, "no_wait")) {
        ADD(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_wait4, 0, 1));
        ADD(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM));
        ADD(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
    } else if (is(what, "asks")) {
        ADD(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 0, 1));
        ADD(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF));
        ADD(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
    } else if (is(what, "ptracer")) {
        ADD(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_prctl, 0, 3));
        ADD(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args)));
        ADD(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PR_SET_PTRACER, 0, 1));
        ADD(BPF_STMT(BPF_RET | BPF_K, end));
        ADD(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
    } else if (is(what, "clone")) {
        // A thread comes by clone3, a child by fork.
        ADD(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 0, 1));
        ADD(BPF_STMT(BPF_RET | BPF_K, end));
        ADD(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
    } else {
        for (size_t i = 0; i < ARRAY(allowed); i++) {
            ADD(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)allowed[i], 0, 1));
            ADD(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
        }
        // fork, in libc's way.
        ADD(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 0, 4));
        ADD(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args)));
        ADD(BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0xff));
        ADD(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SIGCHLD, 0, 1));
        ADD(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
        ADD(BPF_STMT(BPF_RET | BPF_K, end));
    }
    struct sock_fprog program = {used, code};
    if (is(way, "prctl")) return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
    if (is(way, "syscall_prctl")) return syscall(SYS_prctl, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
    if (is(way, "seccomp")) return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program);
    if (is(way, "all_threads")) return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program);
    if (is(way, "listener")) {
        pthread_t supervisor;
        listener = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
        return listener < 0 ? -1 : pthread_create(&supervisor, 0, supervise, 0);
    }
    // As libseccomp finds out what the kernel has.
    if (is(way, "probe")) return syscall(SYS_seccomp, SECCOMP_SET_MODE_STRICT, 1, 0) == -1 && errno == EINVAL ? 0 : -1;
    if (is(way, "unknown")) return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 1ul << 30, &program) == -1 && errno == EINVAL ? 0 : -1;
    if (is(way, "vfork")) {
        int status, child = vfork();
        if (child == 0) _exit(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0 ? 5 : 6);
        return waitpid(child, &status, 0) == child && status == 5 << 8 ? 0 : -1;
    }
    program.len = 0;
    check(is(way, "refused"));
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == -1 && errno == EINVAL ? 0 : -1;
}

int main(int count, char **words) {
    check(count == 4);
    below(fill);
    work_in_what_there_is();
    if (is(words[3], "lose")) kept = 0;
    check(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    if (is(words[1], "strict")) {
        check(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) == 0);
        below(lose_more);
        work_in_what_there_is();
        say("works");
        syscall(SYS_exit, 0);
    }
    pthread_t scanner;
    if (is(words[1], "all_threads")) {
        // It is at it when the filter comes.
        check(pthread_create(&scanner, 0, scanning, 0) == 0);
        hear();
    }
    if (!is(words[1], "none")) check(put(words[1], words[2]) == 0);
    if (is(words[1], "all_threads")) check(pthread_join(scanner, 0) == 0);
    if (is(words[2], "service") || is(words[2], "launch")) execl("/proc/self/exe", words[0], "none", "all", words[3], NULL);
    below(lose_more);
    work_in_what_there_is();
    if (is(words[2], "still")) {
        static void *more[10 * MANY];
        for (int i = 0; i < 10 * MANY; i++) check((more[i] = malloc(SMALL)) != 0);
        say("works");
        _exit(3);
    }
    for (int i = 0; i < 5000; i++) free(malloc((size_t)i));
    if (is(words[2], "asks")) LEAKSCAN_SCAN();
    if (!is(words[2], "clone") && !is(words[2], "no_wait")) {
        pthread_t started;
        check(pthread_create(&started, 0, thread, 0) == 0 && pthread_join(started, 0) == 0);
        int status, child = fork();
        if (child == 0) {
            free(malloc(100));
            _exit(7);
        }
        check(wait4(child, &status, 0, 0) == child && status == 7 << 8);
    }
    say("works");
    return 3;
}
