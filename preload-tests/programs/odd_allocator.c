// flags: -shared -fPIC
// An allocator whose blocks of 40 bytes lie 8 bytes behind a multiple of 16, as the first ones of some do. To be preloaded behind
// libleakscan.so.
#include <malloc.h>
#include <stdint.h>
#include <string.h>

static _Alignas(16) char space[64 << 20];
static size_t used;

void *malloc(size_t size) {
    size_t begin = (used + 8 + 15) / 16 * 16 + (size == 40 ? 8 : 0);
    size_t whole = (size + 15) / 16 * 16;
    if (size > sizeof space || begin + whole > sizeof space) return 0;
    used = begin + whole;
    memcpy(space + begin - 8, &size, 8);
    return space + begin;
}
void free(void *block) { (void)block; }
void *calloc(size_t count, size_t size) { return malloc(count * size); }
size_t malloc_usable_size(void *block) {
    size_t size = 0;
    if (block) memcpy(&size, (char *)block - 8, 8);
    return size;
}
void *realloc(void *old, size_t size) {
    void *block = malloc(size);
    size_t before = malloc_usable_size(old);
    if (block && old) memcpy(block, old, before < size ? before : size);
    return block;
}
