/* malloc+free pairs from many stacks: paths PAIRS. Each of 4,096 paths leads through 20 of 64 functions with frames of several sizes; at the
 * end of one are 16 pairs of 85 bytes on average, and up to 4,096, among 4,096 live blocks, each written to; then comes another. Prints the
 * nanoseconds of the clock per pair. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { LIVE = 4096, PATHS = 4096, DEEP = 20, AT_ONCE = 16 };
static char *live[LIVE];
static uint64_t random_state = 0x9e3779b97f4a7c15u;

static uint64_t next_random(void)
{
    random_state ^= random_state << 13, random_state ^= random_state >> 7, random_state ^= random_state << 17;
    return random_state;
}

static __attribute__((noinline)) void replace(void)
{
    for (int i = 0; i < AT_ONCE; i++) {
        uint64_t random = next_random();
        size_t size = 16 + (random >> 32) % (random >> 57 ? 112 : 4081);
        char **slot = &live[random % LIVE];
        free(*slot);
        *slot = malloc(size);
        (*slot)[0] = (*slot)[size - 1] = 1;
    }
}

typedef void step(uint64_t path, int deep);
static step *const steps[64];

#define STEP(n)                                                                                                                \
    static __attribute__((noinline)) void step##n(uint64_t path, int deep)                                                     \
    {                                                                                                                          \
        volatile char room[8 + n % 8 * 8];                                                                                     \
        room[0] = 0;                                                                                                           \
        if (deep)                                                                                                              \
            steps[path >> 58](path * 0xd1342543de82ef95u + 0x2545f4914f6cdd1du, deep - 1);                                     \
        else                                                                                                                   \
            replace();                                                                                                         \
        room[0] = 1;                                                                                                           \
    }
#define EIGHT(d) STEP(d##0) STEP(d##1) STEP(d##2) STEP(d##3) STEP(d##4) STEP(d##5) STEP(d##6) STEP(d##7)
EIGHT(1) EIGHT(2) EIGHT(3) EIGHT(4) EIGHT(5) EIGHT(6) EIGHT(7) EIGHT(8)
#define NAMES(d) step##d##0, step##d##1, step##d##2, step##d##3, step##d##4, step##d##5, step##d##6, step##d##7
static step *const steps[64] = {NAMES(1), NAMES(2), NAMES(3), NAMES(4), NAMES(5), NAMES(6), NAMES(7), NAMES(8)};

int main(int argc, char **argv)
{
    long pairs = argc > 1 ? atol(argv[1]) : 1000000;
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (long i = 0; i < pairs; i += AT_ONCE) {
        uint64_t path = (next_random() % PATHS + 1) * 0x9e3779b97f4a7c15u;
        steps[path >> 58](path * 0xd1342543de82ef95u, DEEP - 1);
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    for (int i = 0; i < LIVE; i++)
        free(live[i]);
    printf("%.2f\n", ((end.tv_sec - begin.tv_sec) * 1e9 + (end.tv_nsec - begin.tv_nsec)) / pairs);
    return 0;
}
