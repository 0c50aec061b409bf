// Calls malloc and its like so many times, says how many of these calls wrapping_library.c has seen, and keeps or loses three blocks.
#include "test.h"
#include <dlfcn.h>
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>

typedef void *volatile Slot;

enum { BLOCKS = 1000 };
static NOINLINE void work(void) {
    void *volatile window[BLOCKS];
    for (int i = 0; i < BLOCKS; i++) window[i] = malloc((size_t)i + 1);
    for (int i = 0; i < BLOCKS; i++) window[i] = realloc(window[i], (size_t)i * 7 + 1);
    for (int i = 0; i < BLOCKS; i++) free(window[i]);
    for (int i = 0; i < BLOCKS; i++) {
        char *block = window[i] = calloc(3, (size_t)i + 1);
        for (int k = 0; k < 3 * (i + 1); k++) check(block[k] == 0);
        check(malloc_usable_size(block) >= 3 * ((size_t)i + 1));
    }
    for (int i = 0; i < BLOCKS; i++) free(window[i]);
}
static void *working_thread(void *_) {
    work();
    return _;
}

static Slot kept[3];
static NOINLINE void by_malloc(void) { kept[0] = memset(malloc(1337), 0, 1337); }
static NOINLINE void by_calloc(void) { kept[1] = calloc(7, 191); }
static NOINLINE void by_realloc(void) { kept[2] = memset(realloc(malloc(11), 1337), 0, 1337); }

int main(int count, char **words) {
    check(count == 2);
    long (*calls)(int) = (long (*)(int))dlsym(RTLD_DEFAULT, "wrapped_calls");
    check(calls != 0);
    long before[4];
    for (int i = 0; i < 4; i++) before[i] = calls(i);
    work();
    for (int i = 0; i < 4; i++) before[i] = calls(i) - before[i];
    char line[200];
    snprintf(line, sizeof line, "%ld malloc, %ld calloc, %ld realloc, %ld free", before[0], before[1], before[2], before[3]);
    say(line);
    pthread_t threads[3];
    for (int i = 0; i < 3; i++) check(pthread_create(&threads[i], 0, working_thread, 0) == 0);
    for (int i = 0; i < 3; i++) check(pthread_join(threads[i], 0) == 0);
    below(by_malloc);
    below(by_calloc);
    below(by_realloc);
    if (is(words[1], "lose")) kept[0] = kept[1] = kept[2] = 0;
    scan();
    scan();
    say("done");
    exit(0);
}
