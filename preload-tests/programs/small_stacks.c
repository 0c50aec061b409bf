// A handler on an alternate stack that has 2 KiB more than the kernel needs, which is less than the 8 KiB that Rust gives its threads. The
// first argument says what happens there: `scan` is asked for, `end` by SIGTERM, or `malloc` from functions that were not met before. The second
// is how many more threads there are.
#include "test.h"
#include <pthread.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/mman.h>

#ifndef AT_MINSIGSTKSZ
#define AT_MINSIGSTKSZ 51
#endif

static void *volatile kept;
static NOINLINE void *lose(void) { return malloc(1337); }
static NOINLINE void *allocate(void) {
    void *block = realloc(malloc(20), 500);
    free(calloc(1, 30));
    return block;
}
static void in_scan(int signal) { check(LEAKSCAN_SCAN() == 1); }
static void in_malloc(int signal) { kept = allocate(); }
static NOINLINE void lose_one(void) { kept = lose(), kept = 0; }

static int ready[2];
static void *wait_for_ever(void *nothing) {
    check(write(ready[1], "", 1) == 1);
    for (;;) pause();
}

int main(int count, char **arguments) {
    check(count == 3 && pipe(ready) == 0);
    for (int i = atoi(arguments[2]); i > 0; i--) {
        pthread_t thread;
        char byte;
        check(pthread_create(&thread, 0, wait_for_ever, 0) == 0 && read(ready[0], &byte, 1) == 1);
    }
    unsigned long least = getauxval(AT_MINSIGSTKSZ);
    size_t size = ((least ? least : MINSIGSTKSZ) + 2048 + 15) & ~15ul;
    // A page before it that nobody may touch.
    size_t whole = (size + 4095) & ~4095ul;
    char *memory = mmap(0, 4096 + whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(memory != MAP_FAILED && mprotect(memory, 4096, PROT_NONE) == 0);
    stack_t stack = {.ss_sp = memory + 4096, .ss_size = size};
    check(sigaltstack(&stack, 0) == 0);
    below(lose_one);
    if (strcmp(arguments[1], "end") == 0) raise(SIGTERM);
    struct sigaction action = {.sa_handler = strcmp(arguments[1], "scan") == 0 ? in_scan : in_malloc, .sa_flags = SA_ONSTACK};
    check(sigaction(SIGUSR1, &action, 0) == 0 && raise(SIGUSR1) == 0);
    scrub();
    exit(0);
}
