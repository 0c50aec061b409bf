// Ends by an exception that nobody catches.
#include "test.h"
#include <stdexcept>

static NOINLINE void lose() { memset(malloc(1337), 0, 1337); }

int main() {
    below(lose);
    throw std::runtime_error("nobody catches this");
}
