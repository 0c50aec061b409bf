// Looks for jemalloc as programs do: by the weak names of its functions, which it takes for there if one is. In tables, too, of which
// ld.so makes one read-only when it has filled it.
#include "test.h"

__attribute__((weak)) void *mallocx(size_t size, int flags), *rallocx(void *block, size_t size, int flags);
__attribute__((weak)) size_t nallocx(size_t size, int flags), xallocx(void *block, size_t size, size_t extra, int flags);
__attribute__((weak)) void dallocx(void *block, int flags), sdallocx(void *block, size_t size, int flags);
static const void *const closed[] = {mallocx, rallocx, xallocx, dallocx, sdallocx};
static const void *open[] = {mallocx, rallocx, xallocx, dallocx, sdallocx};

int main(void) {
    const void *const *volatile tables[] = {closed, open};
    for (int i = 0; i < 10; i++) say(tables[i / 5][i % 5] ? "in the table" : "not in the table");
    say(rallocx ? "rallocx" : "no rallocx");
    say(xallocx ? "xallocx" : "no xallocx");
    say(dallocx ? "dallocx" : "no dallocx");
    say(sdallocx ? "sdallocx" : "no sdallocx");
    void *block = mallocx ? mallocx(nallocx(100, 0), 0) : malloc(100);
    check(block != 0);
    free(block);
    say("done");
    return 0;
}
