// Memory whose faults the program serves itself (userfaultfd), and a block which is kept, or lost. Four words: what is done; how the
// descriptor is had (`call`: by libc, `raw`: past it, `device`); where the memory is; the block's fate.
// `forks`: a thread is to take note of each fork, which waits for that; a scan is asked for, then the program forks. `full`: the same
// while every descriptor is in use. `alone`: nobody takes note any more. `many`: the same beside a hundred other descriptors. `closed`: the same, until the descriptor is closed.
// `at_end`: nobody does, and no scan is asked for. `unserved`: nobody serves the memory any more when the program ends.
#define _GNU_SOURCE
#include "test.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { LEN = 16 * 4096 };
static char data[LEN] __attribute__((aligned(4096)));
static int faults, starts[2];
static void *volatile kept;
static NOINLINE void *make(void) { return memset(malloc(1337), 0, 1337); }

static void *take_note(void *unused) {
    struct uffd_msg message;
    check(write(starts[1], "", 1) == 1);
    while (read(faults, &message, sizeof message) == sizeof message)
        if (message.event == UFFD_EVENT_FORK) {
            close(message.arg.fork.ufd);
            say("told of a fork");
            check(write(starts[1], "", 1) == 1);
        }
    return unused;
}

static long raw(long number, long flags) {
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(flags) : "rcx", "r11", "memory");
    return result < 0 ? (errno = (int)-result, -1) : result;
}

static int get(const char *how, int flags) {
    if (is(how, "call")) return (int)syscall(SYS_userfaultfd, flags);
    if (is(how, "raw")) return (int)raw(SYS_userfaultfd, flags);
    int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
    int got = device < 0 ? device : ioctl(device, USERFAULTFD_IOC_NEW, flags & ~UFFD_USER_MODE_ONLY);
    close(device);
    return got;
}

static void use_up_descriptors(void) {
    struct rlimit few = {64, 64};
    check(setrlimit(RLIMIT_NOFILE, &few) == 0);
    while (dup(2) >= 0) {
    }
}

static void scan_and_say(void) { say(LEAKSCAN_SCAN() ? "scanned" : "not scanned"); }

int main(int count, char **words) {
    check(count == 5);
    const char *what = words[1];
    int forks = !is(what, "unserved");
    struct uffdio_api api = {.api = UFFD_API, .features = forks ? UFFD_FEATURE_EVENT_FORK : 0};
    faults = get(words[2], O_CLOEXEC | (forks ? 0 : UFFD_USER_MODE_ONLY));
    if (faults < 0 || ioctl(faults, UFFDIO_API, &api) != 0) {
        check(errno == EPERM || errno == EACCES || errno == ENOENT || errno == ENOSYS);
        say("refused");
        return 0;
    }
    char *at = is(words[3], "data") ? data : mmap(0, LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct uffdio_register range = {{(unsigned long)at, LEN}, UFFDIO_REGISTER_MODE_MISSING, 0};
    check(at != MAP_FAILED && ioctl(faults, UFFDIO_REGISTER, &range) == 0);
    kept = make();
    if (is(words[4], "lose")) kept = 0;
    scrub();
    if (is(what, "forks") || is(what, "full")) {
        pthread_t thread;
        char byte;
        check(pipe(starts) == 0 && pthread_create(&thread, 0, take_note, 0) == 0 && read(starts[0], &byte, 1) == 1);
        if (is(what, "full")) use_up_descriptors();
        scan_and_say();
        // The one that takes note is given a descriptor.
        if (is(what, "full")) close(63);
        int status, pid = fork();
        if (pid == 0) _exit(0);
        check(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0 && read(starts[0], &byte, 1) == 1);
    }
    for (int i = 0; is(what, "many") && i < 100; i++) check(dup(2) >= 0);
    if (is(what, "alone") || is(what, "many") || is(what, "closed")) scan_and_say();
    if (is(what, "closed")) close(faults);
    scrub();
    say("done");
    _exit(0);
}
