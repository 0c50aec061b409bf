// A program with a malloc of its own, which wins over every preloaded one, and is there when the program's constructor has run.
#include "test.h"
#include <stdio.h>

enum { ROOM = 1 << 20 };
static char *room;
static size_t used;
__attribute__((constructor)) static void make_ready(void) {
    static char pages[ROOM] __attribute__((aligned(16)));
    room = pages;
}
void *malloc(size_t size) {
    char *block = room + used;
    used += (size + 31) & ~15ul;
    if (used > ROOM) _exit(95);
    *(size_t *)block = size;
    return block + 16;
}
void free(void *block) { (void)block; }
void *calloc(size_t count, size_t size) { return memset(malloc(count * size), 0, count * size); }
void *realloc(void *old, size_t size) {
    void *block = malloc(size);
    if (old) memcpy(block, old, ((size_t *)old)[-2] < size ? ((size_t *)old)[-2] : size);
    return block;
}
int main(void) {
    for (int i = 0; i < 100; i++) free(malloc(100));
    printf("%d\n", used > 10000);
    return 0;
}
