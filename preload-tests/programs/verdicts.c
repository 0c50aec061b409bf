// Loses blocks that point to each other as the first argument says; asks for scans where a verdict needs two of them.
#include "test.h"
#include <stdint.h>

typedef struct Node {
    struct Node *volatile to[4];
    char rest[];
} Node;

// Odd sizes tell the blocks apart.
static NOINLINE Node *node(size_t size) {
    Node *block = malloc(size);
    memset(block, 0, size);
    return block;
}
static Node *volatile global;

static void alone(void) { node(101); }
static void chain(void) { node(101)->to[0] = node(203); }
static void chain_of_three(void) {
    Node *first = node(101);
    first->to[2] = node(203);
    first->to[2]->to[3] = node(407);
}
static void itself(void) {
    Node *block = node(101);
    block->to[0] = block;
}
static Node *ring_of_three(void) {
    Node *first = node(101), *second = node(203), *third = node(407);
    first->to[0] = second;
    second->to[0] = third;
    third->to[0] = first;
    return first;
}
static void ring(void) { ring_of_three(); }
static void ring_with_a_tail(void) { ring_of_three()->to[1] = node(809); }
static void ring_behind_a_block(void) { node(809)->to[0] = ring_of_three(); }
static void two_rings(void) {
    Node *one = ring_of_three(), *other = ring_of_three();
    one->to[1] = other;
    other->to[1] = one;
}
static void shared(void) {
    Node *first = node(101), *second = node(203);
    first->to[0] = second->to[0] = node(407);
}
static void long_list(void) {
    Node *at = node(32);
    for (int i = 0; i < 200000; i++) at = at->to[0] = node(32);
}
static void long_ring(void) {
    Node *first = node(32), *at = first;
    for (int i = 0; i < 200000; i++) at = at->to[0] = node(32);
    at->to[0] = first;
}
static void kept_list(void) {
    Node *at = global = node(32);
    for (int i = 0; i < 200000; i++) at = at->to[0] = node(32);
}
// Reached only through pointers into the middle.
static void to_the_middle(void) { global = (Node *)((char *)node(1337) + 600); }
static void behind_the_middle(void) {
    Node *block = node(1337);
    block->to[0] = node(203);
    global = (Node *)((char *)block + 600);
}
static void middle_of_a_lost_block(void) { node(101)->to[0] = (Node *)((char *)node(1337) + 600); }

static const struct {
    const char *name;
    void (*make)(void);
} shapes[] = {
    {"alone", alone},
    {"chain", chain},
    {"chain_of_three", chain_of_three},
    {"itself", itself},
    {"ring", ring},
    {"ring_with_a_tail", ring_with_a_tail},
    {"ring_behind_a_block", ring_behind_a_block},
    {"two_rings", two_rings},
    {"shared", shared},
    {"long_list", long_list},
    {"long_ring", long_ring},
    {"kept_list", kept_list},
    {"to_the_middle", to_the_middle},
    {"behind_the_middle", behind_the_middle},
    {"middle_of_a_lost_block", middle_of_a_lost_block},
};

// Lost for every scan, but not for the program.
static uintptr_t hidden;
static NOINLINE void hide(void) { hidden = ~(uintptr_t)node(1337); }
static NOINLINE void find_again(void) { global = (Node *)~hidden; }
static NOINLINE void free_hidden(void) { free((void *)~hidden); }
static NOINLINE void grow_hidden(void) { global = realloc((void *)~hidden, 5000); }
static NOINLINE void free_global(void) {
    free(global);
    global = 0;
}

int main(int count, char **words) {
    check(count == 2);
    const char *story = words[1];
    if (is(story, "confirmed")) {
        below(alone);
        scan();
        below(chain);
        scan();
    } else if (is(story, "found_again")) {
        below(hide);
        scan();
        below(find_again);
        scan();
    } else if (is(story, "freed_after_one")) {
        below(hide);
        scan();
        below(free_hidden);
        scan();
    } else if (is(story, "freed_after_two")) {
        below(hide);
        scan();
        scan();
        below(free_hidden);
        scan();
    } else if (is(story, "grown_after_one")) {
        below(hide);
        scan();
        below(grow_hidden);
        scan();
    } else if (is(story, "kept_and_freed")) {
        below(kept_list);
        scan();
        below(free_global);
        scan();
    } else if (is(story, "another_at_its_place")) {
        below(hide);
        uintptr_t first = hidden;
        scan();
        below(free_hidden);
        below(hide);
        check(hidden == first);
        scan();
    } else {
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
            if (is(story, shapes[i].name)) below(shapes[i].make);
        }
    }
    _exit(0);
}
