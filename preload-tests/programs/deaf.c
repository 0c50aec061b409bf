// Nobody can hear what is said on stderr: the first argument says that it is a pipe that nobody reads, or a file that may not grow. The signals for
// that come to a handler of the program's if there is a second argument.
#include "test.h"
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>

static void told(int signal) { _exit(9); }
static NOINLINE void lose(void) { memset(malloc(1337), 0, 1337); }

int main(int count, char **words) {
    check(count >= 2);
    if (count > 2) check(signal(SIGPIPE, told) != SIG_ERR && signal(SIGXFSZ, told) != SIG_ERR);
    if (is(words[1], "pipe")) {
        int ends[2];
        check(pipe(ends) == 0 && dup2(ends[1], 2) == 2 && close(ends[0]) == 0 && close(ends[1]) == 0);
    } else {
        int file = open("stderr", O_WRONLY | O_CREAT, 0600);
        check(file >= 0 && dup2(file, 2) == 2 && close(file) == 0);
        check(setrlimit(RLIMIT_FSIZE, &(struct rlimit){0, 0}) == 0);
    }
    below(lose);
    scan();
    sigset_t waiting;
    check(sigpending(&waiting) == 0 && !sigismember(&waiting, SIGPIPE) && !sigismember(&waiting, SIGXFSZ));
    return 0;
}
