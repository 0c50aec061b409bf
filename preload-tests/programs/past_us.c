// Asks an allocator for a block by a function of its own, by which it does not come to us, and keeps another block of 1337 bytes there;
// with "lose" not any more.
#include "test.h"

__attribute__((weak)) void *mi_malloc(size_t size);
static void **holder;
static NOINLINE void fill(void) { holder[3] = calloc(1, 1337); }

int main(int count, char **words) {
    check(count == 2 && mi_malloc);
    holder = memset(mi_malloc(64), 0, 64);
    below(fill);
    if (is(words[1], "lose")) holder[3] = 0;
    scan();
    return 0;
}
