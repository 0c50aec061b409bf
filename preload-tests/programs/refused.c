// One thread asks for a filter that the kernel does not take, again and again, while the other one makes children that lose a block. A third
// keeps a block by its stack, which the children's copy of it still does.
#include "test.h"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static atomic_int is_over;
static NOINLINE void lose(void) { calloc(1, 1337); }

static void *asking_thread(void *_) {
    // It takes its time to find what is wrong at the end.
    enum { LONGEST = 4096 };
    static struct sock_filter kill[LONGEST];
    for (int i = 0; i < LONGEST - 1; i++) kill[i] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
    kill[LONGEST - 1].code = 0xffff;
    struct sock_fprog program = {LONGEST, kill};
    check(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    while (!is_over) check(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == -1);
    return _;
}

static int ready[2], never[2];
static void *keeping_thread(void *_) {
    void *volatile block = calloc(1, 4242);
    char byte;
    check(write(ready[1], "", 1) == 1 && read(never[0], &byte, 1) == 1);
    return block;
}

int main(int count, char **words) {
    check(count == 2 && pipe(ready) == 0 && pipe(never) == 0);
    pthread_t thread;
    char byte;
    check(pthread_create(&thread, 0, keeping_thread, 0) == 0 && read(ready[0], &byte, 1) == 1);
    check(pthread_create(&thread, 0, asking_thread, 0) == 0);
    for (int i = atoi(words[1]); i > 0; i--) {
        int status, child = fork();
        if (child == 0) {
            below(lose);
            exit(0);
        }
        check(child > 0 && waitpid(child, &status, 0) == child && status == 0);
    }
    is_over = 1;
    check(pthread_join(thread, 0) == 0);
    return 0;
}
