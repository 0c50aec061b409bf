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
    for (int i = 0; i < 300000; i++) at = at->to[0] = node(32);
}
static void long_ring(void) {
    Node *first = node(32), *at = first;
    for (int i = 0; i < 300000; i++) at = at->to[0] = node(32);
    at->to[0] = first;
}
static void kept_list(void) {
    Node *at = global = node(32);
    for (int i = 0; i < 300000; i++) at = at->to[0] = node(32);
}
// Each of many points to itself, and to nothing else.
static void themselves(void) {
    for (int i = 0; i < 1000; i++) {
        Node *block = node(101);
        block->to[0] = block;
    }
}
// A list that comes to where it has been.
static Node *list_into_a_ring_of(int before, int around) {
    Node *first = node(32), *at = first;
    for (int i = 1; i < before; i++) at = at->to[0] = node(32);
    Node *entry = at->to[0] = node(48);
    for (at = entry; around > 1; around--) at = at->to[0] = node(48);
    at->to[0] = entry;
    return first;
}
static void list_into_a_ring(void) { list_into_a_ring_of(150000, 150000); }
static void kept_list_into_a_ring(void) { global = list_into_a_ring_of(150000, 150000); }
static void list_that_ends_in_itself(void) { list_into_a_ring_of(1000, 1); }
// Another list comes to the same ring, at another block of it.
static void two_lists_into_a_ring(void) {
    Node *one = list_into_a_ring_of(1000, 1000), *other = node(203), *at = one;
    for (int i = 0; i < 1500; i++) at = at->to[0];
    other->to[0] = at;
}
// Kept from its midst on: what is before that is lost.
static void list_kept_from_its_ring_on(void) {
    Node *first = list_into_a_ring_of(1000, 1000), *at = first;
    for (int i = 0; i < 1500; i++) at = at->to[0];
    global = at;
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
    {"themselves", themselves},
    {"list_into_a_ring", list_into_a_ring},
    {"kept_list_into_a_ring", kept_list_into_a_ring},
    {"list_that_ends_in_itself", list_that_ends_in_itself},
    {"two_lists_into_a_ring", two_lists_into_a_ring},
    {"list_kept_from_its_ring_on", list_kept_from_its_ring_on},
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
