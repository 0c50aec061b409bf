// A scan while a thread's realloc has given its old block back already, and another block has begun where that one lay: 16 bytes
// behind its start, or ("around") before it, or ("longer") at it. The other block holds one of 1337 bytes; with "lose" it does not any more.
#include "test.h"
#include <dlfcn.h>
#include <pthread.h>
#include <semaphore.h>

static sem_t begin, done, go_on;
static char *old, *moved, *before, *volatile first, **volatile second;

static void wait_for(sem_t *event) {
    while (sem_wait(event) != 0) {
    }
}

static void *move(void *unused) {
    wait_for(&begin);
    moved = realloc(old, 4000);
    return unused;
}

static int at = 1;
static NOINLINE void fill(void) { second[at] = calloc(1, 1337); }

int main(int count, char **words) {
    check(count == 3);
    void (*hold)(sem_t *, sem_t *) = (void (*)(sem_t *, sem_t *))dlsym(RTLD_DEFAULT, "hold_next_realloc");
    check(hold && sem_init(&begin, 0, 0) == 0 && sem_init(&done, 0, 0) == 0 && sem_init(&go_on, 0, 0) == 0);
    pthread_t thread;
    check(pthread_create(&thread, 0, move, 0) == 0);
    int around = is(words[1], "around");
    // Larger than what the threads keep for themselves, so that neighbours join.
    before = malloc(2000);
    old = malloc(2000);
    void *behind = malloc(2000);
    check(old == before + 2016);
    hold(&done, &go_on);
    sem_post(&begin);
    wait_for(&done);
    free(before);
    if (is(words[1], "longer")) {
        free(behind);
        behind = 0;
        // The three are one free block, of which the first part is taken: the next begins where the old one lay.
        first = malloc(2000);
        second = malloc(3000);
        check(first == before && (char *)second == old);
        at = 2800 / 8;
    } else if (around) {
        second = malloc(3000);
        check((char *)second == before);
        // What points behind the old block's start is a pointer into this one.
        first = (char *)second + 2100;
    } else {
        first = malloc(2016);
        second = malloc(1500);
        check(first == before && (char *)second == old + 16);
    }
    before = old = 0;
    below(fill);
    if (is(words[2], "lose")) second[at] = 0;
    if (around) second = 0;
    scan();
    sem_post(&go_on);
    check(pthread_join(thread, 0) == 0);
    free(moved);
    free(behind);
    return 0;
}
