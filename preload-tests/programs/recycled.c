// A recycled block that is not written yet holds a stale pointer to a lost one; and frees, of which some may be left out.
#include "test.h"
#include <malloc.h>

// Larger than what threads keep freed blocks of: realloc does not look there.
struct box {
    char head[64];
    void *held;
    char rest[3000];
};
static struct box *volatile kept;
static void *volatile guard;
static void *volatile blocks[1000];

static NOINLINE void recycle(struct box *(*again)(struct box *)) {
    struct box *first = malloc(sizeof *first);
    memset(first, 0, sizeof *first);
    first->held = memset(malloc(1337), 0, 1337);
    struct box *second = malloc(16);
    guard = malloc(16);
    free(first);
    kept = again(second);
    // The same memory, or nothing is shown.
    check(kept == first);
}
static struct box *by_malloc(struct box *block) {
    free(block);
    return malloc(sizeof(struct box));
}
static struct box *by_calloc(struct box *block) {
    free(block);
    return calloc(1, sizeof(struct box));
}
static struct box *by_realloc(struct box *block) { return realloc(block, sizeof(struct box)); }
static struct box *by_memalign(struct box *block) {
    free(block);
    return memalign(16, sizeof(struct box));
}
static void malloced(void) { recycle(by_malloc); }
static void calloced(void) { recycle(by_calloc); }
static void realloced(void) { recycle(by_realloc); }
static void aligned(void) { recycle(by_memalign); }

// 1,000 blocks, one of which a global goes on pointing to.
static void many(void) {
    for (int i = 0; i < 1000; i++) blocks[i] = memset(malloc(100), 0, 100);
    for (int i = 0; i < 1000; i++) {
        free(blocks[i]);
        if (i != 499) blocks[i] = 0;
    }
}

int main(int count, char **words) {
    check(count == 2);
    if (is(words[1], "malloc")) below(malloced);
    if (is(words[1], "calloc")) below(calloced);
    if (is(words[1], "realloc")) below(realloced);
    if (is(words[1], "memalign")) below(aligned);
    if (is(words[1], "many")) below(many);
    return 0;
}
