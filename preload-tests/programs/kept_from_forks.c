// Pages that are kept from forks hold the only pointers to 64 blocks of 1337 bytes, while scans look three times: `alone`, beside
// other `threads`, while one of them waits in `vfork` for its child, which shares the memory and stops for nobody, where the kernel
// was asked for it `untold`, or where a filter `kills` who takes the advice back, or (`kept`) who gives it. A fork of the program's own
// then has what the program wanted it to have. With a third argument the pages left out are of a `file`, `shared`, or of a `private` file.
#define _GNU_SOURCE
#include "test.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
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

static void *map(const char *kind) {
    int flags = strcmp(kind, "shared") && strcmp(kind, "file") ? MAP_PRIVATE : MAP_SHARED, file = -1;
    if (!strcmp(kind, "file") || !strcmp(kind, "private")) {
        file = open("pages", O_RDWR | O_CREAT | O_TRUNC, 0600);
        check(file >= 0 && ftruncate(file, 2 * PAGES * PAGE) == 0);
    }
    char *at = mmap(0, 2 * PAGES * PAGE, PROT_READ | PROT_WRITE, flags | (file < 0 ? MAP_ANONYMOUS : 0), file, 0);
    check(at != MAP_FAILED);
    return at;
}

// Ends whoever calls madvise with this advice.
static void kill_by_filter(int advice) {
    struct sock_filter steps[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_madvise, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, advice, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {sizeof steps / sizeof *steps, steps};
    check(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0);
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
    left_out = map(argc > 2 ? argv[2] : ""), wiped = map("");
    // Each second page, so that each is a mapping of its own; and some may not be written any more.
    for (int i = 0; i < PAGES; i++) {
        char *out = left_out + 2 * i * PAGE, *zero = wiped + 2 * i * PAGE;
        fill(out), fill(zero);
        // (What is wiped without a word is not seen, unless something else is left out.)
        check(advise(out, MADV_DONTFORK, untold) == 0 && advise(zero, MADV_WIPEONFORK, untold) == 0);
        // (A shared file that may not be written is one that is read.)
        if (i % 4 == 3 && !(argc > 2 && !strcmp(argv[2], "file"))) check(mprotect(out, PAGE, PROT_READ) == 0);
    }
    for (int i = 0; i < count; i++) {
        char byte;
        check(pthread_create(threads + i, 0, count == 1 ? in_vfork : waiting, 0) == 0 && read(says[0], &byte, 1) == 1);
    }
    if (!strcmp(mode, "kills")) kill_by_filter(MADV_DOFORK);
    if (!strcmp(mode, "kept")) kill_by_filter(MADV_DONTFORK);
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
