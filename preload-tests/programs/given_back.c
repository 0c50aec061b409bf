// A thread has run on a stack of the program's own and was joined. "table": that memory holds the pointer to a block of 1337 bytes.
// "block": so does a block that has come where the thread's table of thread-local storage was. With "lose" they do not any more.
#define _GNU_SOURCE
#include "test.h"
#include <pthread.h>
#include <sys/mman.h>

static void *ends(void *unused) { return unused; }
static void **volatile holders[64];
static void **place;
static NOINLINE void fill(void) { *place = calloc(1, 1337); }

int main(int count, char **words) {
    check(count == 3);
    size_t size = 64 << 10;
    void **stack = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(stack != MAP_FAILED);
    pthread_attr_t attributes;
    pthread_t thread;
    check(pthread_attr_init(&attributes) == 0 && pthread_attr_setstack(&attributes, stack, size) == 0);
    check(pthread_create(&thread, &attributes, ends, 0) == 0 && pthread_join(thread, 0) == 0);
    pthread_attr_destroy(&attributes);
    place = stack;
    if (is(words[1], "block")) {
        // Of all sizes that such a table may have: one gets its address.
        for (int i = 0; i < 64; i++) holders[i] = calloc(1, 248 + 16 * (size_t)i);
        for (int i = 0; i < 64; i++) {
            place = (void **)&holders[i][8];
            below(fill);
            if (is(words[2], "lose")) *place = 0;
        }
    } else {
        below(fill);
        if (is(words[2], "lose")) *place = 0;
    }
    place = 0;
    scan();
    scan();
    return 0;
}
