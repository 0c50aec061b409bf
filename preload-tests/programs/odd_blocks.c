// Two blocks of 40 bytes and one of 48, lost; as many given back.
#include "test.h"

static NOINLINE void *made_here(size_t size) { return malloc(size); }
static void lose(void) {
    for (volatile int i = 0; i < 2; i++) made_here(40);
    made_here(48);
    for (volatile int i = 0; i < 2; i++) free(made_here(40));
    free(made_here(48));
}

int main(void) {
    deeply(lose);
    scrub();
    return 0;
}
