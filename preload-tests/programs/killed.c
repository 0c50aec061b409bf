// Children of two threads that scan all the time, each killed at another moment: none leaves anybody behind who has its descriptors.
#include "test.h"
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>

enum { CHILDREN = 600 };
static int up[2], never[2];

static void *waiting_thread(void *_) {
    char byte;
    check(read(never[0], &byte, 1) == 1);
    return _;
}

int main(void) {
    int held[2];
    char byte;
    check(pipe(held) == 0 && pipe(up) == 0 && pipe(never) == 0);
    for (int i = 0; i < CHILDREN; i++) {
        pid_t child = fork();
        if (child == 0) {
            pthread_t thread;
            check(pthread_create(&thread, 0, waiting_thread, 0) == 0 && write(up[1], "", 1) == 1);
            for (;;) LEAKSCAN_SCAN();
        }
        check(child > 0 && read(up[0], &byte, 1) == 1);
        spin(i * 7919 % 3000 * 1000l);
        check(kill(child, SIGKILL) == 0 && waitpid(child, 0, 0) == child);
    }
    close(held[1]);
    struct pollfd end = {held[0], POLLIN, 0};
    check(poll(&end, 1, 20000) == 1 && read(held[0], &byte, 1) == 0);
    say("nobody is left");
    return 0;
}
