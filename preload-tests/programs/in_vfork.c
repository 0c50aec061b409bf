// A thread waits in vfork for its child, with the only pointer to a block of 1337 bytes in a register. Two scans meanwhile. (x86-64)
#define _GNU_SOURCE
#include "test.h"
#include <pthread.h>
#include <sys/wait.h>

int starts[2], ends[2];

// Its child says that it is there, and waits until it may end. Nothing is left in the registers of a system call's arguments.
int in_child(void);
__asm__("in_child: push %rbx\n xor %edi, %edi\n xor %esi, %esi\n xor %edx, %edx\n xor %r8d, %r8d\n xor %r9d, %r9d\n"
        " xor %r10d, %r10d\n call vfork\n test %eax, %eax\n jne 1f\n call child\n1: pop %rbx\n ret\n");
void child(void) {
    char byte;
    if (write(starts[1], "", 1) == 1 && read(ends[0], &byte, 1) == 1) _exit(0);
    _exit(1);
}

static NOINLINE void *made(void) { return calloc(1, 1337); }

static void *thread(void *unused) {
    register void *kept __asm__("r13") = made();
    __asm__ volatile("" : "+r"(kept));
    int pid = in_child();
    __asm__ volatile("" : "+r"(kept));
    free(kept);
    int status;
    check(waitpid(pid, &status, 0) == pid && status == 0);
    return unused;
}

int main(void) {
    pthread_t made;
    char byte;
    check(pipe(starts) == 0 && pipe(ends) == 0 && pthread_create(&made, 0, thread, 0) == 0);
    check(read(starts[0], &byte, 1) == 1);
    scan();
    scan();
    check(write(ends[1], "", 1) == 1 && pthread_join(made, 0) == 0);
    return 0;
}
