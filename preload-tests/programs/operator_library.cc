// flags: -shared -fPIC
// A library with operators new and delete of its own, which counts, and hands out blocks with a header. Says at the end what it made.
#include <cstdio>
#include <cstdlib>
#include <new>

static struct Count {
    long made, deleted;
    ~Count() { fprintf(stderr, "%ld made, %ld deleted\n", made, deleted); }
} count;

void *operator new(size_t size) {
    char *block = (char *)malloc(size + 16);
    if (!block) throw std::bad_alloc();
    count.made++;
    return block + 16;
}
void operator delete(void *block) noexcept {
    if (!block) return;
    count.deleted++;
    free((char *)block - 16);
}
