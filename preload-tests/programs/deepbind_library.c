// flags: -shared -fPIC
// Loaded with RTLD_DEEPBIND: finds libc's malloc and free before ours.
#include "test.h"

struct node {
    void *held;
    char rest[56];
};
static struct node *node;

void give_back(void *block) { free(block); }

void hold(void *block) {
    node = malloc(sizeof *node);
    node->held = block;
}

void let_go(void) { node->held = 0; }

NOINLINE void lose_past(void) { memset(malloc(1337), 0, 1337); }
