// Memory whose faults the program serves itself (userfaultfd). `forks`: a thread of its own is to take note of each fork, which waits for
// that; a scan is asked for, then the program forks. `unserved`: nobody serves it any more when the program ends.
#define _GNU_SOURCE
#include "test.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static int faults, starts[2];

static void *take_note(void *unused) {
    struct uffd_msg message;
    check(write(starts[1], "", 1) == 1);
    while (read(faults, &message, sizeof message) == sizeof message)
        if (message.event == UFFD_EVENT_FORK) {
            close(message.arg.fork.ufd);
            say("told of a fork");
        }
    return unused;
}

int main(int argc, char **argv) {
    int forks = argc > 1 && !strcmp(argv[1], "forks");
    struct uffdio_api api = {.api = UFFD_API, .features = forks ? UFFD_FEATURE_EVENT_FORK : 0};
    faults = syscall(SYS_userfaultfd, O_CLOEXEC | (forks ? 0 : UFFD_USER_MODE_ONLY));
    if (faults < 0 || ioctl(faults, UFFDIO_API, &api) != 0) {
        check(errno == EPERM || errno == ENOSYS);
        say("refused");
        return 0;
    }
    char *at = mmap(0, 16 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct uffdio_register range = {{(unsigned long)at, 16 * 4096}, UFFDIO_REGISTER_MODE_MISSING, 0};
    check(at != MAP_FAILED && ioctl(faults, UFFDIO_REGISTER, &range) == 0);
    if (forks) {
        pthread_t thread;
        char byte;
        check(pipe(starts) == 0 && pthread_create(&thread, 0, take_note, 0) == 0 && read(starts[0], &byte, 1) == 1);
        say(LEAKSCAN_SCAN() ? "scanned" : "not scanned");
        int status, pid = fork();
        if (pid == 0) _exit(0);
        check(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0);
    }
    void *volatile lost = malloc(1337);
    lost = 0;
    scrub();
    say("done");
    _exit(0);
}
