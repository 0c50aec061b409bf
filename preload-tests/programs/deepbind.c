// A library whose calls of malloc and free go to libc directly, and blocks that both sides use.
#include "test.h"
#include <dlfcn.h>

#define MANY 60
static void *blocks[MANY];
static void (*give_back)(void *), (*hold)(void *), (*let_go)(void), (*lose_past)(void);

static NOINLINE void *make(void) { return memset(malloc(1337), 0, 1337); }
static NOINLINE void hand_over(void) { hold(make()); }

// Blocks of one size are given back past us; some stay, so that lists of free ones and joined ones arise.
static NOINLINE void freed_past(size_t size) {
    for (int i = 0; i < MANY; i++) blocks[i] = memset(malloc(size), 0, size);
    for (int i = 0; i < MANY; i++)
        if (i % 10) {
            give_back(blocks[i]);
            blocks[i] = 0;
        }
}

int main(int count, char **words) {
    check(count == 4);
    void *library = dlopen(words[3], RTLD_NOW | RTLD_DEEPBIND);
    check(library != 0);
    give_back = dlsym(library, "give_back");
    hold = dlsym(library, "hold");
    let_go = dlsym(library, "let_go");
    lose_past = dlsym(library, "lose_past");
    const char *what = words[1];
    if (is(what, "freed")) {
        freed_past((size_t)atoi(words[2]));
    } else if (is(what, "held")) {
        hand_over();
    } else if (is(what, "let_go")) {
        hand_over();
        let_go();
    } else if (is(what, "lose_past")) {
        lose_past();
    } else {
        check(is(what, "lose"));
        make();
    }
    scrub();
    return 0;
}
