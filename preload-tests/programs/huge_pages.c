// The only pointers to 64 blocks of 1337 bytes lie in private huge pages, of which the pool has as many as these and no more; a thread writes
// to all of them throughout. "reserved", or "unreserved" (MAP_NORESERVE); "kept", by which the program keeps them from its forks, too, or
// "forked", or "vfork": before the last scan a thread begins to wait for such a child; "lose" or "keep"; how many pages. With "malloc" the pages are glibc's (GLIBC_TUNABLES=glibc.malloc.hugetlb=2).
#define _GNU_SOURCE
#include "test.h"
#include <pthread.h>
#include <sys/mman.h>

enum { BLOCKS = 64, PAGE = 2 << 20, SMALL = 100000 };
static char *pages;
static int number;
static volatile long rounds;
static volatile int is_over;

static void *writing(void *unused) {
    for (; !is_over; rounds++)
        for (int i = 0; i < number; i++) ((volatile char *)pages)[(size_t)i * PAGE + PAGE / 2]++;
    return unused;
}
static void **slot(int i) { return (void **)(pages + (size_t)(i % number) * PAGE) + i; }
static NOINLINE void fill(void) {
    for (int i = 0; i < BLOCKS; i++) *slot(i) = calloc(1, 1337);
}
// So that a scan takes its time.
static NOINLINE void chain(void) {
    void **last = (void **)(pages + PAGE / 4);
    for (int i = 0; i < SMALL; i++) last = *last = calloc(1, 40);
}

// The child waits for the end of the program's input.
static int begun[2];
static void *waiting(void *unused) {
    if (vfork() == 0) {
        char byte;
        if (write(begun[1], "", 1) == 1 && read(0, &byte, 1) >= 0) _exit(0);
        _exit(1);
    }
    return unused;
}

int main(int count, char **words) {
    check(count == 5);
    number = atoi(words[4]);
    if (is(words[1], "malloc")) {
        pages = malloc((size_t)number * PAGE - 64);
    } else {
        int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | (is(words[1], "unreserved") ? MAP_NORESERVE : 0);
        pages = mmap(0, (size_t)number * PAGE, PROT_READ | PROT_WRITE, flags, -1, 0);
    }
    check(pages != 0 && pages != MAP_FAILED);
    memset(pages, 0, (size_t)number * PAGE - 64);
    if (is(words[2], "kept")) check(madvise(pages, (size_t)number * PAGE, MADV_DONTFORK) == 0);
    below(fill);
    below(chain);
    if (is(words[3], "lose"))
        for (int i = 0; i < BLOCKS; i++) *slot(i) = 0;
    pthread_t writer;
    check(pthread_create(&writer, 0, writing, 0) == 0);
    for (int i = 0; i < 3; i++) {
        pthread_t waiter;
        char byte;
        if (i == 2 && is(words[2], "vfork")) {
            check(pipe(begun) == 0 && pthread_create(&waiter, 0, waiting, 0) == 0);
            check(read(begun[0], &byte, 1) == 1);
        }
        scan();
        // Beside the scan, if that still runs, and after it.
        for (long now = rounds; rounds < now + 2;) {
        }
    }
    is_over = 1;
    check(pthread_join(writer, 0) == 0);
    say("done");
    if (is(words[2], "vfork")) _exit(0);
    return 0;
}
