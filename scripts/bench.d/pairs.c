/* malloc+free pairs: pairs THREADS PAIRS. Each thread keeps 4,096 blocks of 16 to 512 bytes and replaces one after the other
 * in random order, eight calls deep in one of four functions. Prints the nanoseconds of the clock per pair and thread. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { LIVE = 4096 };
static long pairs;
/* Compiled with -DALLOCATE='calloc(1, size)', another function's pairs. */
#ifndef ALLOCATE
#define ALLOCATE malloc(size)
#endif

typedef void *allocate(size_t size, int depth);
#define CALLER(name)                                                                                                           \
    static __attribute__((noinline)) void *name(size_t size, int depth)                                                        \
    {                                                                                                                          \
        void *volatile block = depth ? name(size, depth - 1) : ALLOCATE;                                                       \
        return block;                                                                                                          \
    }
CALLER(first)
CALLER(second)
CALLER(third)
CALLER(fourth)
static allocate *const callers[] = {first, second, third, fourth};

static void *work(void *seed)
{
    static __thread void *live[LIVE];
    uint64_t random = (uint64_t)(uintptr_t)seed * 0x9e3779b97f4a7c15u | 1;
    for (long i = 0; i < pairs; i++) {
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        void **slot = &live[random % LIVE];
        free(*slot);
        *slot = callers[random >> 20 & 3](16 + (random >> 32) % 497, 7);
    }
    for (int i = 0; i < LIVE; i++)
        free(live[i]), live[i] = NULL;
    return NULL;
}

int main(int argc, char **argv)
{
    long threads = argc > 1 ? atol(argv[1]) : 1;
    pairs = argc > 2 ? atol(argv[2]) : 1000000;
    pthread_t others[64];
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (long i = 1; i < threads; i++)
        pthread_create(&others[i], NULL, work, (void *)(i + 1));
    work((void *)1);
    for (long i = 1; i < threads; i++)
        pthread_join(others[i], NULL);
    clock_gettime(CLOCK_MONOTONIC, &end);
    printf("%.2f\n", ((end.tv_sec - begin.tv_sec) * 1e9 + (end.tv_nsec - begin.tv_nsec)) / pairs);
    return 0;
}
