// Memory that lies like a heap of glibc's arenas, or near one. `beside`: 200 mappings of the program's own of 1 MiB hold a block of 1337 bytes
// each, beside the heaps of eight threads; one block of 97 bytes is lost, and named by a freed block of a thread's heap only.
// `pool`: a pool of 64 MiB, found by masking addresses, begins like a heap: an empty list, what is in use, how much there is.
// Its 100 blocks of 1337 bytes are given up when an argument more is given.
#define _GNU_SOURCE
#include "test.h"
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

enum { HELD = 200, POOL = 64 << 20 };
static int says[2], ends[2];

static NOINLINE void *held(void) { return malloc(1337); }
static NOINLINE void *lost(void) { return malloc(97); }

static void lose(void) {
    void **names = malloc(4000);
    names[100] = lost();
    free(names);
}
static void *thread(void *number) {
    // (Every second heap has grown to 4 MiB.)
    int count = (uintptr_t)number % 2 ? 1 : 40;
    char byte, *blocks[40];
    for (int i = 0; i < count; i++) blocks[i] = malloc(100 << 10);
    for (int i = 0; i < count - 1; i++) free(blocks[i]);
    below(lose);
    check(write(says[1], "", 1) == 1 && read(ends[0], &byte, 1) == 0);
    free(blocks[count - 1]);
    return 0;
}

static void *map(size_t size) {
    void *at = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    check(at != MAP_FAILED);
    return at;
}

struct pool {
    struct pool *next, *previous;
    size_t used, room;
    void *objects[100];
};
static struct pool *pool;
static void fill(void) {
    pool = (struct pool *)(((uintptr_t)map(2 * POOL) + POOL - 1) & ~(uintptr_t)(POOL - 1));
    *pool = (struct pool){.next = pool, .previous = pool, .used = 1 << 20, .room = POOL};
    for (int i = 0; i < 100; i++) pool->objects[i] = held();
}

int main(int argc, char **argv) {
    pthread_t threads[8];
    char byte;
    int beside = argc > 1 && !strcmp(argv[1], "beside");
    check(pipe(says) == 0 && pipe(ends) == 0);
    if (!beside) {
        below(fill);
        if (argc > 2) memset(pool->objects, 0, sizeof pool->objects);
        scan();
        return 0;
    }
    for (int i = 0; i < 8; i++) check(pthread_create(threads + i, 0, thread, (void *)(uintptr_t)i) == 0 && read(says[0], &byte, 1) == 1);
    void ***pages = map(HELD * sizeof *pages);
    for (int i = 0; i < HELD; i++) (pages[i] = map(1 << 20))[100] = held();
    scan();
    close(ends[1]);
    for (int i = 0; i < 8; i++) check(pthread_join(threads[i], 0) == 0);
    return 0;
}
