// Memory that lies like a heap of glibc's arenas, or near one. `beside`: 200 mappings of the program's own of 1 MiB hold a block of 1337 bytes
// each, beside the heaps of eight threads; one block of 97 bytes is lost, and named by a freed block of a thread's heap only.
// `pool`: a pool of 64 MiB, found by masking addresses, begins like a heap: an empty list, what is in use, how much there is.
// Its 100 blocks of 1337 bytes are given up when an argument more is given. `aligned`: a block of 1 MiB of that alignment and one of 1337
// bytes point to themselves and to each other; `obstructed`: two of 1337 bytes do, where the first arena has its second part. They are lost,
// unless an argument more is given.
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

static void **volatile cycle;
static void tie(void **one, void **other) {
    one[100] = one;
    one[101] = other;
    other[100] = one;
    cycle = one;
}
static size_t alignment;
static void tie_aligned(void) { tie(aligned_alloc(alignment, 1 << 20), held()); }
static void tie_obstructed(void) {
    static void *volatile before[4000];
    char *end = sbrk(0);
    check(mmap(end, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == end);
    for (int i = 0; i < 4000; i++) before[i] = malloc(200);
    void **one = held(), **other = held();
    check((char *)one > end && (char *)other > end);
    memset(one, 0, 1337), memset(other, 0, 1337);
    tie(one, other);
}

int main(int argc, char **argv) {
    pthread_t threads[8];
    char byte;
    int beside = argc > 1 && !strcmp(argv[1], "beside");
    check(pipe(says) == 0 && pipe(ends) == 0);
    if (argc > 2 && (!strcmp(argv[1], "aligned") || !strcmp(argv[1], "obstructed"))) {
        alignment = strtoul(argv[2], 0, 0);
        below(alignment ? tie_aligned : tie_obstructed);
        if (argc == 3) cycle = 0;
        scan();
        scan();
        _exit(0);
    }
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
