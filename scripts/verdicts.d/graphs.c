// Blocks of 40 bytes that point to each other: argv[1] names the shape, argv[2] says kept (a global has the first) or lost.
#include "case.h"

struct node {
    struct node *volatile next;
    char rest[32];
};
static NOINLINE struct node *node(void) {
    struct node *block = malloc(sizeof *block);
    memset(block, 0, sizeof *block);
    return block;
}
static Slot global;
static struct node *list(int length, struct node **last) {
    struct node *first = node(), *at = first;
    for (int i = 1; i < length; i++) at = at->next = node();
    *last = at;
    return first;
}
static NOINLINE void alone_now(void) { global = node(); }
static NOINLINE void long_chain(void) {
    struct node *last;
    global = list(300000, &last);
}
static NOINLINE void itself(void) {
    struct node *one = node();
    global = one->next = one;
}
static NOINLINE void cycle(void) {
    struct node *last, *first = list(3, &last);
    global = last->next = first;
}
static NOINLINE void long_cycle(void) {
    struct node *last, *first = list(300000, &last);
    global = last->next = first;
}
static NOINLINE void into_cycle(void) {
    struct node *last, *first = list(5, &last);
    last->next = first->next->next;
    global = first;
}
static NOINLINE void out_of_cycle(void) {
    struct node *last, *first = list(3, &last);
    struct node *volatile *slot = (struct node *volatile *)(first->rest + 8);
    *slot = node();
    global = last->next = first;
}
static NOINLINE void two_to_one(void) {
    struct node *one = node(), *other = node();
    one->next = other->next = node();
    // The second is reached by the first while that is kept.
    *(struct node *volatile *)(one->rest + 8) = other;
    global = one;
}
#define SHAPE(name)                                                                                                    \
    static void do_##name(void) {                                                                                      \
        below(name);                                                                                                   \
        if (lost) global = 0;                                                                                          \
    }
SHAPE(alone_now)
SHAPE(long_chain)
SHAPE(itself)
SHAPE(cycle)
SHAPE(long_cycle)
SHAPE(into_cycle)
SHAPE(out_of_cycle)
SHAPE(two_to_one)

static const struct choice graphs[] = {
    {"alone", do_alone_now},
    {"long_chain", do_long_chain},
    {"itself", do_itself},
    {"cycle", do_cycle},
    {"long_cycle", do_long_cycle},
    {"into_cycle", do_into_cycle},
    {"out_of_cycle", do_out_of_cycle},
    {"two_to_one", do_two_to_one},
};
MAIN_LOOKS(graphs)
