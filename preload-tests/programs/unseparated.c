// flags: -Wl,-z,noseparate-code
// A small program, whose code ends in the page of the file that its data begins in: it loses a block of 1337 bytes.
#include "test.h"

static NOINLINE void lose(void) { memset(malloc(1337), 0, 1337); }

int main(void) {
    below(lose);
    scan();
    return 0;
}
