// Two threads ask for a filter on system calls. One's is refused, or a handler jumps out of its call (`jump`); the other's ends the program for what
// we would ask of the kernel. Ends by exit. With `twice` one thread puts on one that ends it for rt_sigprocmask, too, and then the same again.
#include "test.h"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>

#define ENDS_AT(number)                                                                                                        \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS)
static struct sock_filter code[] = {
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
    ENDS_AT(SYS_wait4),
    ENDS_AT(SYS_prlimit64),
    ENDS_AT(SYS_getresuid),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
};
static struct sock_fprog filter = {sizeof code / sizeof *code, code};
// The same, and for what we look at a filter by.
static struct sock_filter closer[] = {
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
    ENDS_AT(SYS_wait4),
    ENDS_AT(SYS_rt_sigprocmask),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
};
static struct sock_fprog closer_filter = {sizeof closer / sizeof *closer, closer};
static pthread_barrier_t both, asked;

static void *refused_thread(void *_) {
    const unsigned UNKNOWN = 0x400000;
    pthread_barrier_wait(&both);
    check(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, UNKNOWN, &filter) == -1);
    pthread_barrier_wait(&asked);
    return _;
}
static void *filtered_thread(void *_) {
    check(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    pthread_barrier_wait(&both);
    check(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter) == 0);
    pthread_barrier_wait(&asked);
    exit(0);
    return _;
}

static sigjmp_buf back;
static void jump(int signal) { siglongjmp(back, 1); }
static void *later_thread(void *_) {
    check(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter) == 0);
    return _;
}
static void jump_out(void) {
    signal(SIGALRM, jump);
    struct itimerval soon = {.it_value.tv_usec = 200};
    if (sigsetjmp(back, 1) == 0) {
        check(setitimer(ITIMER_REAL, &soon, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0);
        for (;;) pause();
    }
}

int main(int count, char **words) {
    pthread_t threads[2];
    if (count > 1 && is(words[1], "twice")) {
        check(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
        for (int i = 0; i < 2; i++) check(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &closer_filter) == 0);
        exit(0);
    }
    if (count > 1) {
        check(is(words[1], "jump") && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
        jump_out();
        check(pthread_create(&threads[0], 0, later_thread, 0) == 0 && pthread_join(threads[0], 0) == 0);
        exit(0);
    }
    pthread_barrier_init(&both, 0, 2);
    pthread_barrier_init(&asked, 0, 2);
    check(pthread_create(&threads[0], 0, refused_thread, 0) == 0 && pthread_create(&threads[1], 0, filtered_thread, 0) == 0);
    for (;;) pause();
}
