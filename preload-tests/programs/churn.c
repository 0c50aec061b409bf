// Eight threads make, move, resize, exchange and free blocks, all of which are reachable at every moment: from globals, from each
// other, from a stack, or from a register only. Meanwhile as many scans are made as the first argument says, for as many
// seconds as the third does at least. With a second one other than 0 each resizes an array of that many bytes instead.
#include "test.h"
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <time.h>
#include <stdint.h>

#define THREADS 8
#define SLOTS 4096
#define OWN 64

struct item {
    struct item *next;
    size_t size;
    unsigned char rest[];
};

static _Atomic(struct item *) slots[SLOTS];
static atomic_int over;
static atomic_ulong rounds;

static uint64_t next_of(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static struct item *make(uint64_t random) {
    size_t size = sizeof(struct item) + (random % 16 ? random % 200 : random % 5000);
    struct item *item = random & 1 << 20 ? malloc(size) : calloc(1, size);
    item->next = 0;
    item->size = size;
    return item;
}

static void drop(struct item *item) {
    while (item) {
        struct item *next = item->next;
        free(item);
        item = next;
    }
}

static void *work(void *seed) {
    uint64_t state = (uint64_t)(uintptr_t)seed * 0x9e3779b97f4a7c15 + 1;
    struct item *own[OWN] = {0};
    while (!atomic_load(&over)) {
        for (int i = 0; i < 1000; i++) {
            uint64_t random = next_of(&state);
            struct item **mine = &own[random >> 32 & (OWN - 1)];
            _Atomic(struct item *) *slot = &slots[random >> 40 & (SLOTS - 1)];
            switch (random >> 56 & 7) {
            case 0:
                drop(*mine);
                *mine = make(random);
                break;
            case 1:  // The pointer is in a register only, between the two.
                *mine = atomic_exchange(slot, *mine);
                break;
            case 2: {
                struct item *head = make(random);
                head->next = *mine;
                *mine = head;
                break;
            }
            case 3:
                if (*mine) *mine = realloc(*mine, sizeof(struct item) + random % 900);
                break;
            case 4:
                drop(atomic_exchange(slot, (struct item *)0));
                break;
            default: {
                struct item *there = atomic_exchange(slot, make(random));
                drop(there);
            }
            }
        }
        atomic_fetch_add(&rounds, 1);
    }
    for (int i = 0; i < OWN; i++) drop(own[i]);
    return 0;
}

// An array that is resized all the time is what keeps its blocks. The block behind it makes it move.
static void *resize(void *size) {
    size_t small = (uintptr_t)size, blocks = 100;
    struct item **array = malloc(small);
    for (size_t i = 0; i < blocks; i++) array[i] = make(i);
    while (!atomic_load(&over)) {
        array = realloc(array, 3 * small);
        void *behind = malloc(24);
        array = realloc(array, small);
        free(behind);
        atomic_fetch_add(&rounds, 1);
    }
    for (size_t i = 0; i < blocks; i++) drop(array[i]);
    free(array);
    return 0;
}

int main(int count, char **words) {
    check(count == 4);
    uintptr_t size = (uintptr_t)atol(words[2]);
    time_t until = time(0) + atol(words[3]);
    pthread_t threads[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++)
        check(pthread_create(&threads[i], 0, size ? resize : work, (void *)(size ? size : i + 1)) == 0);
    for (int scans = atoi(words[1]); scans > 0 || time(0) < until; scans--) {
        unsigned long before = atomic_load(&rounds);
        LEAKSCAN_SCAN();
        while (atomic_load(&rounds) < before + THREADS) sched_yield();
    }
    atomic_store(&over, 1);
    for (int i = 0; i < THREADS; i++) check(pthread_join(threads[i], 0) == 0);
    for (int i = 0; i < SLOTS; i++) drop(slots[i]);
    return 0;
}
