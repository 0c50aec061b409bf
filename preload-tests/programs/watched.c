// A program with a process that watches over it, of which it is to see nothing.
#include "test.h"
#include <errno.h>
#include <signal.h>
#include <sys/wait.h>

#ifndef __WALL
#define __WALL 0x40000000
#endif

static void lose(void) { memset(malloc(1337), 0, 1337); }

int main(int count, char **words) {
    check(count == 2);
    check(waitpid(-1, 0, __WALL) == -1 && errno == ECHILD);
    if (is(words[1], "forks")) {
        pid_t child = fork();
        if (child == 0) {
            check(waitpid(-1, 0, __WALL) == -1 && errno == ECHILD);
            below(lose);
            say("lost");
            hear();
        }
        int status;
        check(waitpid(-1, &status, __WALL) == child && WTERMSIG(status) == SIGKILL);
        return 5;
    }
    say("ready");
    hear();
    if (is(words[1], "execs")) execl("/bin/cat", "cat", (char *)0);
    return 5;
}
