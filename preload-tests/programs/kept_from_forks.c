// Pages that are kept from forks hold the only pointers to 64 blocks of 1337 bytes, while scans look three times: `alone`, beside
// other `threads`, while one of them waits in `vfork` for its child, which shares the memory and stops for nobody, or where the kernel
// was asked for it `untold`. A fork of the program's own then has what the program wanted it to have.
#define _GNU_SOURCE
#include "test.h"
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { PAGES = 32, PAGE = 4096 };
static int says[2], ends[2];
static char *left_out, *wiped;

static void wait_for_end(void) {
    char byte;
    check(read(ends[0], &byte, 1) == 0);
}

static NOINLINE int with_child(void) {
    int pid = vfork();
    if (pid) return pid;
    char byte;
    close(ends[1]);
    _exit(!(write(says[1], "", 1) == 1 && read(ends[0], &byte, 1) == 0));
}

static void *in_vfork(void *unused) {
    int status, pid = with_child();
    check(waitpid(pid, &status, 0) == pid && status == 0);
    return unused;
}
static void *waiting(void *unused) {
    check(write(says[1], "", 1) == 1);
    wait_for_end();
    return unused;
}

static NOINLINE void fill(char *page) {
    ((void **)page)[7] = malloc(1337);
    ((void **)page)[5] = page;
}

static void *map(void) {
    char *at = mmap(0, 2 * PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(at != MAP_FAILED);
    return at;
}

static int advise(void *page, int advice, int untold) {
    register long result __asm__("rax") = SYS_madvise;
    register void *at __asm__("rdi") = page;
    register long length __asm__("rsi") = PAGE;
    register long what __asm__("rdx") = advice;
    if (!untold) return madvise(page, PAGE, advice);
    __asm__ volatile("syscall" : "+r"(result) : "r"(at), "r"(length), "r"(what) : "rcx", "r11", "memory");
    return result;
}

int main(int argc, char **argv) {
    const char *mode = argc > 1 ? argv[1] : "";
    pthread_t threads[4];
    int untold = !strcmp(mode, "untold");
    int count = untold || !strcmp(mode, "alone") ? 0 : !strcmp(mode, "vfork") ? 1 : 4;
    check(pipe(says) == 0 && pipe(ends) == 0);
    left_out = map(), wiped = map();
    // Each second page, so that each is a mapping of its own; and some may not be written any more.
    for (int i = 0; i < PAGES; i++) {
        char *out = left_out + 2 * i * PAGE, *zero = wiped + 2 * i * PAGE;
        fill(out), fill(zero);
        // (What is wiped without a word is not seen, unless something else is left out.)
        check(advise(out, MADV_DONTFORK, untold) == 0 && advise(zero, MADV_WIPEONFORK, untold) == 0);
        if (i % 4 == 3) check(mprotect(out, PAGE, PROT_READ) == 0);
    }
    for (int i = 0; i < count; i++) {
        char byte;
        check(pthread_create(threads + i, 0, count == 1 ? in_vfork : waiting, 0) == 0 && read(says[0], &byte, 1) == 1);
    }
    for (int i = 0; i < 3; i++) scan();

    int status, pid = fork();
    if (pid == 0) {
        unsigned char there;
        for (int i = 0; i < PAGES; i++) {
            char *out = left_out + 2 * i * PAGE, *zero = wiped + 2 * i * PAGE;
            check(mincore(out, PAGE, &there) == -1 && errno == ENOMEM && mincore(out + PAGE, PAGE, &there) == 0);
            check(((void **)zero)[5] == 0 && ((void **)zero)[7] == 0);
        }
        _exit(0);
    }
    check(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0);
    close(ends[1]);
    for (int i = 0; i < count; i++) check(pthread_join(threads[i], 0) == 0);
    for (int i = 0; i < PAGES; i++) {
        char *out = left_out + 2 * i * PAGE, *zero = wiped + 2 * i * PAGE;
        check(((void **)out)[5] == out && ((void **)zero)[5] == zero);
        free(((void **)out)[7]), free(((void **)zero)[7]);
    }
    return 0;
}
