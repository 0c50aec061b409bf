// Begins as root, is scanned, becomes user 65534 by the function that the argument names ("back": and root again; "refused": not allowed to), and is scanned again.
// A block of 1337 bytes is lost before, one of 999 behind it. With "spawn" it is a child of vfork that becomes another user.
#define _GNU_SOURCE
#include "test.h"
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { NOBODY = 65534 };
static NOINLINE void lose(void) { calloc(1, 1337); }
static NOINLINE void lose_more(void) { calloc(1, 999); }

int main(int count, char **words) {
    check(count == 2);
    below(lose);
    scan();
    const char *way = words[1];
    if (is(way, "setuid")) check(setuid(NOBODY) == 0);
    if (is(way, "seteuid")) check(seteuid(NOBODY) == 0);
    if (is(way, "setreuid")) check(setreuid(NOBODY, NOBODY) == 0);
    if (is(way, "setresuid")) check(setresuid(NOBODY, NOBODY, NOBODY) == 0);
    if (is(way, "real")) check(setreuid(NOBODY, 0) == 0);
    if (is(way, "real_alone")) check(setreuid(-1, NOBODY) == 0);
    if (is(way, "refused")) {
        struct sock_filter code[] = {
            BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_setuid, 0, 1),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        };
        check(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &(struct sock_fprog){4, code}) == 0);
        check(setuid(NOBODY) == -1 && errno == EPERM);
    }
    // In two steps, with a scan between them.
    if (is(way, "seteuid_setresuid") || is(way, "seteuid_setreuid")) {
        check(seteuid(NOBODY) == 0 && prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0);
        scan();
        if (is(way, "seteuid_setresuid")) check(setresuid(NOBODY, NOBODY, NOBODY) == 0);
        else check(setreuid(NOBODY, NOBODY) == 0);
        check(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 1);
    }
    if (is(way, "saved_alone")) {
        check(setresuid(NOBODY, NOBODY, 0) == 0);
        scan();
        check(setresuid(-1, -1, NOBODY) == 0);
    }
    // Of who is not root setuid changes the effective user alone.
    if (is(way, "setuid_of_another")) {
        check(setresuid(NOBODY, 0, 0) == 0 && seteuid(NOBODY) == 0 && setuid(NOBODY) == 0);
        check(seteuid(0) == 0 && setuid(3000) == 0);
    }
    if (is(way, "back")) check(seteuid(NOBODY) == 0 && seteuid(0) == 0);
    if (is(way, "spawn")) {
        int status, child = vfork();
        if (child == 0) {
            // Without us: that user may not be able to read the library.
            if (setuid(NOBODY) == 0) execle("/bin/true", "true", NULL, (char *[]){NULL});
            _exit(1);
        }
        check(waitpid(child, &status, 0) == child && status == 0);
    }
    below(lose_more);
    scan();
    return 0;
}
