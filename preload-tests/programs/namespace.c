// Its children are to be in a pid namespace of their own, the first one its init: a scan is asked for before there is one. (Only root may.)
#define _GNU_SOURCE
#include "test.h"
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>

static NOINLINE void lose(void) { calloc(1, 1337); }

int main(int count, char **words) {
    below(lose);
    if (count > 1 && is(words[1], "user")) {
        // What is there of a report is handed over, in two steps.
        scan();
        check(unshare(CLONE_NEWPID) == 0 && seteuid(65534) == 0 && setresuid(65534, 65534, 65534) == 0);
        say("65534");
    } else if (count > 1) {
        check(is(words[1], "no proc") && unshare(CLONE_NEWNS) == 0);
        check(mount("none", "/", 0, MS_REC | MS_PRIVATE, 0) == 0 && mount("none", "/proc", "tmpfs", 0, 0) == 0);
    }
    if (count == 1 || !is(words[1], "user")) check(unshare(CLONE_NEWPID) == 0);
    scan();
    scan();
    int status, child = fork();
    if (child == 0) _exit(getpid() == 1 ? 5 : 6);
    check(child > 0 && waitpid(child, &status, 0) == child && status == 5 << 8);
    say("done");
    return 0;
}
