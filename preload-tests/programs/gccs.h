// Pages as of the collector of GCC's compilers (ggc-page.cc), with their entries and the list of these: 40 pages of four objects.
#include "test.h"
#include <signal.h>
#include <sys/mman.h>

struct page_entry {
    struct page_entry *next, *previous;
    size_t bytes;
    char *page;
    unsigned long place;
    unsigned short depth, free, hint;
    unsigned char order;
    _Bool discarded;
    unsigned long in_use[1];
};
enum { PAGES = 40 };
static struct page_entry **list;
static char *memory;

static void *lost(void) { return memset(malloc(1337), 0, 1337); }

// The object's first word.
static void **object(int page, int number) { return (void **)(memory + page * 4096 + number * 1024); }

static void set_free(int page, int number) {
    list[page]->in_use[0] &= ~(1ul << number);
    list[page]->free++;
}

static void make_pages(void) {
    list = calloc(1000, sizeof *list);
    memory = mmap(0, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(memory != MAP_FAILED);
    for (int i = 0; i < PAGES; i++) {
        list[i] = calloc(1, sizeof *list[i]);
        *list[i] = (struct page_entry){.bytes = 4096, .page = memory + i * 4096, .place = i, .order = 10, .in_use = {31}};
    }
}

// One object is in use and one is dead, and each points to a block.
static void objects(void) {
    *object(3, 1) = lost();
    *object(7, 2) = memset(malloc(100), 0, 100);
    set_free(3, 1);
}
// The same object, in use.
static void objects_in_use(void) { *object(3, 1) = lost(); }
// Where a collection is under way, and little is marked yet.
static void collecting(void) {
    *object(3, 1) = lost();
    for (int page = 0; page < PAGES - 1; page++)
        for (int number = 0; number < 4; number++) set_free(page, number);
}
// What the list still names behind its end is a block by now that is lost.
static void end_of_list(void) { list[PAGES] = lost(); }
// A fault, or a signal that ends the program, may come in the midst of a collection.
static void on_fault(int signal) { exit(0); }
int main(int count, char **words) {
    check(count == 2);
    below(make_pages);
    if (is(words[1], "ended") || is(words[1], "faulted")) {
        below(objects);
        scrub();
        if (is(words[1], "ended")) raise(SIGTERM);
        signal(SIGSEGV, on_fault);
        raise(SIGSEGV);
    }
    if (is(words[1], "objects") || is(words[1], "objects at work")) below(objects);
    if (is(words[1], "objects at work")) scan();
    if (is(words[1], "objects in use")) below(objects_in_use);
    if (is(words[1], "collecting")) below(collecting);
    if (is(words[1], "end of the list")) below(end_of_list);
    return 0;
}
