// What a scan cannot look at, as the first argument names it, or nothing of the kind where the second is "no"; two blocks of 1337 bytes
// are made, of which one is kept in a page of that memory, or on the stack of such a thread, and the other is lost.
#include "test.h"
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/stat.h>

enum { PAGE = 4096, PAGES = 8 };
typedef void *volatile Slot;

static int does;
static NOINLINE void *make(void) { return memset(malloc(1337), 0, 1337); }
static NOINLINE void lose(void) { memset(malloc(1337), 0, 1337); }
static Slot *place;
static NOINLINE void put(void) { *place = make(); }
static void keep_at(void *at) {
    place = at;
    below(put);
    place = 0;
}
// With a closed page behind it, which was never touched: nothing can be there.
static char *pages(int flags, int file) {
    char *at = mmap(0, (PAGES + 1) * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(at != MAP_FAILED);
    check(mmap(at, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_FIXED | flags, file, 0) == at);
    return at;
}

// The first of eight pages is open; of the others, five have data.
static void closed_pages(void) {
    char *at = pages(MAP_PRIVATE | MAP_ANONYMOUS, -1);
    for (int i = 0; i < 6; i++) at[i * PAGE] = 1;
    keep_at(at + 3 * PAGE + 64);
    if (does) check(mprotect(at + PAGE, (PAGES - 1) * PAGE, PROT_NONE) == 0);
}

// A file that ends in the third of its eight pages as they are mapped.
static void cut_file(int flags) {
    int file = open("cut", O_RDWR | O_CREAT | O_TRUNC, 0600);
    check(file >= 0 && ftruncate(file, PAGES * PAGE) == 0);
    char *at = pages(flags, file);
    for (int i = 0; i < PAGES; i++) at[i * PAGE] = 1;
    keep_at(at + 2 * PAGE + 64);
    if (does) check(ftruncate(file, 2 * PAGE + 100) == 0);
    close(file);
}
static void cut_shared(void) { cut_file(MAP_SHARED); }
static void cut_private(void) { cut_file(MAP_PRIVATE); }

// The last five of a large file's pages were never in memory.
static void page_of_file(void) {
    enum { MANY = 128 };
    int file = open("large", O_RDWR | O_CREAT | O_TRUNC, 0600);
    check(file >= 0 && ftruncate(file, MANY * PAGE) == 0);
    for (int i = 0; i < MANY - (does ? 5 : 0); i++) check(pwrite(file, "x", 1, (off_t)i * PAGE) == 1);
    char *at = mmap(0, MANY * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    check(at != MAP_FAILED && madvise(at, MANY * PAGE, MADV_RANDOM) == 0);
    keep_at(at + 64);
    close(file);
}

// A thread that computes, and blocks every signal.
static int ready[2];
static void *running_thread(void *_) {
    (void)_;
    Slot local = 0;
    keep_at((void *)&local);
    sigset_t all;
    sigfillset(&all);
    if (does) check(pthread_sigmask(SIG_SETMASK, &all, 0) == 0);
    check(write(ready[1], "", 1) == 1);
    for (volatile int i = 0;; i++) {
    }
    return local;
}
static void start(void *(*routine)(void *)) {
    pthread_t thread;
    char byte;
    check(pipe(ready) == 0 && pthread_create(&thread, 0, routine, 0) == 0 && read(ready[0], &byte, 1) == 1);
}
static void running(void) { start(running_thread); }
// The same, and only a register of it has the address.
static uintptr_t hidden;
static NOINLINE void put_hidden(void) { hidden = ~(uintptr_t)make(); }
static void *register_thread(void *_) {
    (void)_;
    below(put_hidden);
    sigset_t all;
    sigfillset(&all);
    if (does) check(pthread_sigmask(SIG_SETMASK, &all, 0) == 0);
    __asm__ volatile("mov %[hidden], %%rbx\n not %%rbx\n"
                     "mov %[fd], %%edi\n mov $1, %%eax\n lea %[byte], %%rsi\n mov $1, %%edx\n syscall\n"
                     "1: pause\n jmp 1b"
                     :
                     : [hidden] "m"(hidden), [fd] "m"(ready[1]), [byte] "m"(does)
                     : "rbx", "rax", "rcx", "rdx", "rsi", "rdi", "r11", "memory");
    return 0;
}
static void in_register(void) { start(register_thread); }

static const struct {
    const char *name;
    void (*make)(void);
} kinds[] = {
    {"closed", closed_pages},
    {"page_of_file", page_of_file},
    {"cut_shared", cut_shared},
    {"cut_private", cut_private},
    {"running", running},
    {"register", in_register},
};

// Only with a third argument is there somebody to stop, and a copy to be made.
static int never[2];
static void *waiting_thread(void *_) {
    char byte;
    check(write(ready[1], "", 1) == 1 && read(never[0], &byte, 1) == 1);
    return _;
}

int main(int count, char **words) {
    check(count >= 3);
    does = is(words[2], "yes");
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (is(words[1], kinds[i].name)) kinds[i].make();
    }
    if (count > 3) {
        pthread_t thread;
        char byte;
        check(pipe(ready) == 0 && pipe(never) == 0);
        check(pthread_create(&thread, 0, waiting_thread, 0) == 0 && read(ready[0], &byte, 1) == 1);
    }
    below(lose);
    scan();
    scan();
    exit(0);
}
