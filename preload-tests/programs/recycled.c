// A recycled block that is not written yet holds a stale pointer to a lost one; and frees, of which some may be left out.
#include "test.h"
#include <malloc.h>
#include <stdint.h>
#include <sys/mman.h>

// Larger than what threads keep freed blocks of, by itself: realloc does not look there.
static size_t size = 3072, held = 64;
static void *volatile kept;
static void *volatile guard;
static void *volatile blocks[1000];

static NOINLINE void *full(void) {
    char *block = memset(malloc(size), 0, size);
    *(void **)(block + held) = memset(malloc(1337), 0, 1337);
    return block;
}
static NOINLINE void recycle(void *(*again)(void *)) {
    // glibc 2.43 takes room for a thread's lists of freed blocks when there is the first: not from those that are counted on here.
    free(malloc(600));
    void *first = full();
    void *second = malloc(16);
    guard = malloc(16);
    free(first);
    kept = again(second);
    // The same memory, or nothing is shown.
    check(kept == first);
}
static void *by_malloc(void *block) {
    free(block);
    return malloc(size);
}
static void *by_calloc(void *block) {
    free(block);
    return calloc(1, size);
}
static void *by_realloc(void *block) { return realloc(block, size); }
static void *by_memalign(void *block) {
    free(block);
    return memalign(16, size);
}
static void malloced(void) { recycle(by_malloc); }
static void calloced(void) { recycle(by_calloc); }
static void realloced(void) { recycle(by_realloc); }
static void aligned(void) { recycle(by_memalign); }

// A block in the midst of what was one block before, where none has begun.
static void carved(void) {
    size = 6000, held = 3000;
    char *first = full();
    guard = malloc(16);
    free(first);
    for (int i = 0; i < 30; i++) {
        char *block = malloc(200);
        blocks[i] = block;
        if (block <= first + held && first + held + 8 <= block + 200) kept = block;
    }
    check(kept > (void *)first);
}

// What a block holds stays with it, however it grows and shrinks, among blocks that come and go.
static void growing(void) {
    for (int round = 0; round < 200; round++) {
        size_t length = 100 + round % 50, now = length;
        char *block = memset(malloc(length), 'a', length);
        for (size_t next = 40; next < 20000; next += next / 3) {
            void *other = memset(malloc(next), 'b', next);
            block = realloc(block, next);
            now = next < now ? next : now;
            for (size_t i = 0; i < now; i++) check(block[i] == 'a');
            memset(block, 'a', now = next);
            free(other);
        }
        free(block);
    }
}

// Memory where there was no block before stays as the kernel gives it: not there until it is written.
static void untouched(void) {
    int inside = 0, resident = 0;
    for (int i = 0; i < 200; i++) {
        uintptr_t start = (uintptr_t)malloc(8000), page = (start + 4095) & ~4095ul;
        unsigned char there;
        if (page + 4096 > start + 8000) continue;
        check(mincore((void *)page, 4096, &there) == 0);
        inside++, resident += there & 1;
    }
    check(inside > 100 && resident < 5);
}

// 1,000 blocks; to one of them a global goes on pointing, and to one into the middle.
static void many(void) {
    for (int i = 0; i < 1000; i++) blocks[i] = memset(malloc(100), 0, 100);
    for (int i = 0; i < 1000; i++) {
        free(blocks[i]);
        if (i != 499) blocks[i] = i == 599 ? (char *)blocks[i] + 8 : 0;
    }
}

int main(int count, char **words) {
    check(count >= 2);
    if (count > 2) size = atoi(words[2]);
    if (count > 3) held = atoi(words[3]);
    if (is(words[1], "malloc")) below(malloced);
    if (is(words[1], "calloc")) below(calloced);
    if (is(words[1], "realloc")) below(realloced);
    if (is(words[1], "memalign")) below(aligned);
    if (is(words[1], "carved")) below(carved);
    if (is(words[1], "many")) below(many);
    if (is(words[1], "untouched")) untouched();
    if (is(words[1], "growing")) growing();
    return 0;
}
