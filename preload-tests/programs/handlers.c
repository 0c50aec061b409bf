// Alternate signal stacks that are in use though nobody stands on them, and one that is nobody's any more.
//
// "coroutine": a handler's frame there holds a block of 1337 bytes while it goes on in a coroutine, which scans; "over": the handler has come
// back and given it up. "forked": in the child of a fork the stack of a thread that is not there is freed, and the block that has its
// memory then holds one of 1337 bytes; "lost": not any more.
#define _GNU_SOURCE
#include "test.h"
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/wait.h>
#include <ucontext.h>

enum { SIZE = 64 << 10 };
static ucontext_t handlers, others;
static char coroutine[256 << 10];
static void *alternate;
static void **volatile after;
static sem_t up;

static void there(void) {
    scan();
    swapcontext(&others, &handlers);
}

static NOINLINE void *made(void) { return calloc(1, 1337); }

static void handler(int _) {
    (void)_;
    void *volatile kept = made();
    check(getcontext(&others) == 0);
    others.uc_stack = (stack_t){.ss_sp = coroutine, .ss_size = sizeof coroutine};
    makecontext(&others, there, 0);
    swapcontext(&handlers, &others);
    kept = 0;
}

static void *waits(void *_) {
    stack_t stack = {.ss_sp = alternate, .ss_size = SIZE};
    check(sigaltstack(&stack, 0) == 0);
    sem_post(&up);
    for (;;) pause();
    return _;
}
static NOINLINE void fill(void) { after[100] = calloc(1, 1337); }

int main(int count, char **words) {
    check(count == 2);
    alternate = malloc(SIZE);
    if (is(words[1], "coroutine") || is(words[1], "over")) {
        stack_t stack = {.ss_sp = alternate, .ss_size = SIZE};
        struct sigaction action = {.sa_handler = handler, .sa_flags = SA_ONSTACK};
        check(sigaltstack(&stack, 0) == 0 && sigaction(SIGUSR1, &action, 0) == 0);
        raise(SIGUSR1);
        if (is(words[1], "over")) {
            // Registers of then.
            memset(&handlers, 0, sizeof handlers);
            memset(&others, 0, sizeof others);
            scan();
            scan();
        }
        _exit(0);
    }
    pthread_t thread;
    check(sem_init(&up, 0, 0) == 0 && pthread_create(&thread, 0, waits, 0) == 0);
    while (sem_wait(&up) != 0) {
    }
    pid_t child = fork();
    if (child == 0) {
        free(alternate);
        after = calloc(1, SIZE);
        check((void *)after == alternate);
        alternate = 0;
        below(fill);
        if (is(words[1], "lost")) after[100] = 0;
        scan();
        _exit(0);
    }
    int status;
    check(waitpid(child, &status, 0) == child && status == 0);
    say("done");
    _exit(0);
}
