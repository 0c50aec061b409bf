// An arena of heads as perl's: a head of a value that is gone keeps what it held, one of a value that is there keeps it rightly.
#include "test.h"
#include <stdint.h>

struct head {
    void *any;
    uint32_t references, flags;
    void *held;
};
enum { FREE = 0xff, HEADS = 170 };
static struct head *arena;

static void *lost(void) { return memset(malloc(1337), 0, 1337); }

static void free_heads(void) {
    arena[8] = (struct head){&arena[5], 0, FREE, lost()};
    arena[5] = (struct head){0, 0, FREE, lost()};
}
static void values(void) {
    arena[8] = (struct head){&arena[5], 1, 3, lost()};
    arena[5] = (struct head){0, 1, 0x4403, lost()};
}
// Where no list of free heads leads on.
static void alike(void) {
    arena[8] = (struct head){&arena[5], 0, FREE, lost()};
    arena[5] = (struct head){0, 1, 3, lost()};
}

int main(int count, char **words) {
    check(count == 2);
    arena = calloc(1, HEADS * sizeof *arena);
    if (is(words[1], "free")) below(free_heads);
    if (is(words[1], "values")) below(values);
    if (is(words[1], "alike")) below(alike);
    return 0;
}
