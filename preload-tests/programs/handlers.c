// Alternate signal stacks that are in use though nobody stands on them, and one that is nobody's any more.
//
// "coroutine": a handler's frame there holds a block of 1337 bytes while it goes on in a coroutine, which scans; "over": the handler has come
// back and given it up. "forked": in the child of a fork the stack of a thread that is not there is freed, and the block that has its
// memory then holds one of 1337 bytes; "lost": not any more. "by_hand", "by_hand_over": as the first two, by a switch that nobody is told of.
// "given_back": a stack on which a handler has run (mapped, or a block) is given back, as the kernel is not told, and what has its memory then
// holds the block; with a third argument it holds it no more.
#define _GNU_SOURCE
#include "test.h"
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <ucontext.h>

enum { SIZE = 64 << 10 };
static ucontext_t handlers, others;
static char coroutine[256 << 10] __attribute__((aligned(16)));
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

#if defined __x86_64__
// As coroutine libraries switch: only the registers that a function must keep, and no call that we could see.
void switch_stack(void **from, void *to);
__asm__(".globl switch_stack\nswitch_stack:\n push %rbp\n push %rbx\n push %r12\n push %r13\n push %r14\n push %r15\n"
        "mov %rsp, (%rdi)\n mov %rsi, %rsp\n"
        "pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbx\n pop %rbp\n ret\n");
static void *handlers_sp, *others_sp;
static void there_by_hand(void) {
    scan();
    switch_stack(&others_sp, handlers_sp);
}
static void handler_by_hand(int _) {
    (void)_;
    void *volatile kept = made();
    void **top = (void **)(coroutine + sizeof coroutine) - 16;
    top[6] = (void *)there_by_hand;
    switch_stack(&handlers_sp, top);
    kept = 0;
}
#endif

static void does_nothing(int _) { (void)_; }
static NOINLINE void handle_on_alternate(void (*function)(int)) {
    stack_t stack = {.ss_sp = alternate, .ss_size = SIZE};
    struct sigaction action = {.sa_handler = function, .sa_flags = SA_ONSTACK};
    check(sigaltstack(&stack, 0) == 0 && sigaction(SIGUSR1, &action, 0) == 0);
    raise(SIGUSR1);
}

static void *waits(void *_) {
    stack_t stack = {.ss_sp = alternate, .ss_size = SIZE};
    check(sigaltstack(&stack, 0) == 0);
    sem_post(&up);
    for (;;) pause();
    return _;
}
static NOINLINE void fill(void) { after[100] = calloc(1, 1337); }

static void *map_at(void *wanted) { return mmap(wanted, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); }
// Kept, lest what is lost gets its address, of which there may be copies.
static void *volatile unused;
static void give_back(int is_mapping) {
    if (is_mapping) {
        unused = alternate;
        alternate = map_at(0);
    }
    handle_on_alternate(does_nothing);
    if (is_mapping) {
        check(munmap(alternate, SIZE) == 0);
        after = map_at(alternate);
    } else {
        free(alternate);
        after = malloc(SIZE);
    }
    check((void *)after == alternate);
    alternate = 0;
    below(fill);
}

int main(int count, char **words) {
    check(count >= 2);
    alternate = malloc(SIZE);
    if (is(words[1], "coroutine") || is(words[1], "over")) {
        handle_on_alternate(handler);
        if (is(words[1], "over")) {
            // Registers of then.
            memset(&handlers, 0, sizeof handlers);
            memset(&others, 0, sizeof others);
            scan();
            scan();
        }
        _exit(0);
    }
#if defined __x86_64__
    if (is(words[1], "by_hand") || is(words[1], "by_hand_over")) {
        handle_on_alternate(handler_by_hand);
        if (is(words[1], "by_hand_over")) {
            memset(coroutine, 0, sizeof coroutine);
            scan();
            scan();
        }
        _exit(0);
    }
#endif
    if (is(words[1], "given_back")) {
        check(count >= 3);
        give_back(is(words[2], "mapping"));
        if (count > 3) after[100] = 0;
        scan();
        scan();
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
