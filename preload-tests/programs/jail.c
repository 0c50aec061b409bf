// Loses (or, if the second argument is `keep`, keeps) a block, changes its root directory to the first argument, by the system call if there is
// a third one, and ends.
#include "test.h"
#include <sys/syscall.h>
#include <sys/wait.h>

static void *volatile kept;
static int keeps;
static NOINLINE void make(void) {
    void *block = memset(malloc(1337), 0, 1337);
    if (keeps) kept = block;
}

int main(int count, char **words) {
    check(count > 2);
    keeps = is(words[2], "keep");
    below(make);
    scrub();
    // A child, as a server has one for each connection, and then the program itself.
    if (count > 3 && is(words[3], "child")) {
        int status;
        pid_t child = fork();
        if (child == 0) _exit(chroot(words[1]));
        check(waitpid(child, &status, 0) == child && status == 0);
        return 3;
    }
    if (count > 3 && is(words[3], "vfork")) {
        int status;
        pid_t child = vfork();
        if (child == 0) _exit(chroot(words[1]));
        check(waitpid(child, &status, 0) == child && status == 0);
    }
    check((count > 3 ? syscall(SYS_chroot, words[1]) : chroot(words[1])) == 0 && chdir("/") == 0);
    return 3;
}
