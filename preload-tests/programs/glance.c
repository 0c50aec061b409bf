// Keeps a block of 1337 bytes, and one of 16 that it points to, by a pointer in the place that the first argument names, and ends.
// With "lose" for the second argument the pointer is gone by then.
#include "test.h"
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/resource.h>

static void **mapped;
static void *volatile global[2] = {&mapped, 0};
static void *volatile zeroed;
static __thread void *volatile local;
static char inside[3000];
static int with;

static NOINLINE void **make(void) {
    void **block = calloc(1, 1337);
    block[100] = calloc(1, 16);
    return block;
}
static NOINLINE void into_global(void) { global[1] = make(); }
static NOINLINE void into_zeroed(void) { zeroed = make(); }
static NOINLINE void into_local(void) { local = make(); }
static NOINLINE void into_mapping(void) {
    mapped = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mapped[7] = make();
}
static NOINLINE void as_middle(void) { global[1] = (char *)make() + 24; }
static NOINLINE void with_tag(void) { global[1] = (void *)((uintptr_t)make() | (uintptr_t)0xfff8 << 48); }
static NOINLINE void packed(void) {
    void *block = make();
    memcpy(inside + 1003, &block, 8);
}
// A block that nobody can read: whoever looks into it has to expect that.
static NOINLINE void closed(void) {
    char *block = aligned_alloc(4096, 8192);
    memset(block, 0, 8192);
    mprotect(block, 4096, PROT_NONE);
    global[0] = block;
    global[1] = make();
}
// The same among blocks of the bundled heap.
static char *volatile small[8];
static NOINLINE void closed_small(void) {
    for (int i = 0; i < 8; i++) small[i] = memset(malloc(4000), 0, 4000);
    mprotect((void *)(((uintptr_t)small[4] + 4095) & ~4095ul), 4096, PROT_NONE);
}
// A block mapped by itself, and the page that its header lies in.
static NOINLINE void closed_header(void) {
    char *block = malloc(1 << 20);
    check((uintptr_t)block % 4096 == 16);
    mprotect(block - 16, 4096, PROT_NONE);
    global[0] = block;
    global[1] = make();
}
// A block mapped by itself, and the page that it ends in, of which some bytes were not asked for.
static NOINLINE void closed_end(void) {
    char *block = malloc(1 << 20);
    mprotect((char *)((uintptr_t)(block + (1 << 20)) & ~4095ul), 4096, PROT_NONE);
    global[0] = block;
    global[1] = make();
}
// The header of a block that the last one, which has no bytes, lies behind.
static NOINLINE void closed_below_empty(void) {
    global[1] = make();
    global[0] = malloc(8192);
    char *block = malloc(12000);
    zeroed = malloc(0);
    small[0] = block;
    check((char *)zeroed > block);
    mprotect((char *)((uintptr_t)(block - 8) & ~4095ul), 4096, PROT_NONE);
}
// A program that has written beyond a block's end: the next one's header says 16 MiB.
static NOINLINE void overrun(void) {
    size_t *first = malloc(24), *second = malloc(24);
    check(second - first == 4);
    first[3] = (16 << 20) | 1;
    global[0] = first;
    zeroed = second;
    global[1] = make();
}
// The same of a block mapped by itself: 4 GiB on, nobody has addresses.
static NOINLINE void overrun_mapped(void) {
    size_t *block = malloc(1 << 20), *other = malloc(1 << 20);
    if (block > other) {
        size_t *lower = other;
        other = block;
        block = lower;
    }
    global[0] = block;
    zeroed = other;
    global[1] = make();
    block[-1] = 1ul << 32 | 2;
}
static NOINLINE void on_stack_and_exit(void) {
    void *volatile here = make();
    if (with) here = 0;
    scrub();
    exit(here || with ? 5 : 6);
}
static NOINLINE void in_register_and_exit(void) {
    register void *rbx __asm__("rbx") = make();
    if (with) rbx = 0;
    scrub();
    __asm__ volatile("" : "+r"(rbx));
    exit(5);
}

static sigjmp_buf before_abort;
static void come_back(int signal) {
    (void)signal;
    siglongjmp(before_abort, 1);
}
// An abort, before which nothing is lost, and which is not the end.
static void abort_in_vain(void) {
    signal(SIGABRT, come_back);
    if (!sigsetjmp(before_abort, 1)) abort();
}

int main(int count, char **words) {
    check(count >= 2);
    const char *place = words[1];
    with = count > 2 && is(words[2], "lose");
    if (is(place, "limit")) {
        struct rlimit limit = {100, 100};
        check(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    }
    void (*put)(void) = is(place, "global")    ? into_global
                        : is(place, "limit")   ? into_global
                        : is(place, "abort")   ? into_global
                        : is(place, "zeroed")  ? into_zeroed
                        : is(place, "local")   ? into_local
                        : is(place, "mapping") ? into_mapping
                        : is(place, "middle")  ? as_middle
                        : is(place, "tag")     ? with_tag
                        : is(place, "packed")  ? packed
                        : is(place, "closed")  ? closed
                        : is(place, "closed_small") ? closed_small
                        : is(place, "header")  ? closed_header
                        : is(place, "end")     ? closed_end
                        : is(place, "empty")   ? closed_below_empty
                        : is(place, "overrun") ? overrun
                        : is(place, "overrun_mapped") ? overrun_mapped
                                               : 0;
    if (put) below(put);
    if (is(place, "stack")) on_stack_and_exit();
    if (is(place, "register")) in_register_and_exit();
    check(put);
    if (is(place, "abort")) abort_in_vain();
    if (with) {
        global[1] = zeroed = local = 0;
        memset(inside, 0, sizeof inside);
        if (mapped) mapped[7] = 0;
    }
    scrub();
    return 5;
}
