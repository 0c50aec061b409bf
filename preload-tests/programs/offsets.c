// A block of 1,344 bytes, which keeps another one of 100, is known by how far it lies behind the block that holds that number. The first argument
// is the library whose FcPatternCreate makes them; the second says whether the number is kept or lost, or all is made in this program.
#include "test.h"
#include <dlfcn.h>

static long *(*create)(void);
static long *volatile pattern;
static NOINLINE void make_there(void) { pattern = create(); }
static NOINLINE void make_here(void) {
    long *holder = calloc(1, 16);
    char *block = calloc(84, 16);
    *(char *volatile *)block = calloc(1, 100);
    // Two small numbers before it, as fontconfig's have them.
    ((int *)holder)[0] = 1, ((int *)holder)[1] = 5;
    holder[1] = block - (char *)holder;
    pattern = holder;
}

int main(int count, char **arguments) {
    check(count == 3);
    void *library = dlopen(arguments[1], RTLD_NOW | RTLD_LOCAL);
    check(library && (create = (long *(*)(void))dlsym(library, "FcPatternCreate")));
    below(strcmp(arguments[2], "here") == 0 ? make_here : make_there);
    if (strcmp(arguments[2], "lost") == 0) pattern[1] = 0;
    scrub();
    exit(0);
}
