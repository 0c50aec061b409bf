// Loses a block of 409 bytes and becomes the program that the first argument names: this one under another name, which loses 1337 bytes, says
// `up`, and ends at a line.
#include "test.h"

static NOINLINE void lose(void) { memset(malloc(409), 0, 409); }
static NOINLINE void lose_again(void) { memset(malloc(1337), 0, 1337); }

int main(int count, char **arguments) {
    if (count == 2) {
        below(lose);
        execl(arguments[1], arguments[1], (char *)0);
        return 1;
    }
    below(lose_again);
    say("up");
    hear();
    return 0;
}
