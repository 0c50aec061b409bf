// A program with an operator new and delete of its own, which counts, and hands out blocks with a header.
#include "test.h"
#include <cstdio>
#include <new>
#include <string>

static int made, deleted;
void *operator new(size_t size) {
    made++;
    char *block = (char *)malloc(size + 16);
    if (!block) throw std::bad_alloc();
    return block + 16;
}
void operator delete(void *block) noexcept {
    if (!block) return;
    deleted++;
    free((char *)block - 16);
}
void operator delete(void *block, size_t) noexcept { operator delete(block); }

static NOINLINE void lose() { check(memset(new char[1321], 0, 1321) != nullptr); }
int main() {
    {
        std::string text(500, 'x');
        static int *volatile number;
        number = new int;
        delete number;
    }
    below(lose);
    printf("%d made, %d deleted\n", made, deleted);
    return 0;
}
