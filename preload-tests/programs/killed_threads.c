// Children of 60 threads, each of which keeps a block by its stack alone, are killed at another moment each of the scan at their exit: some of
// their threads are gone before others.
#include "test.h"
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>

enum { CHILDREN = 60, THREADS = 60 };
static int up[2], never[2];

static void *keeping_thread(void *_) {
    void *volatile block = calloc(1, 4242);
    char byte;
    check(write(up[1], "", 1) == 1 && read(never[0], &byte, 1) == 1);
    return block;
}

int main(void) {
    int ends[2];
    char byte;
    check(pipe(up) == 0 && pipe(never) == 0 && pipe(ends) == 0);
    for (int i = 0; i < CHILDREN; i++) {
        pid_t child = fork();
        if (child == 0) {
            pthread_t thread;
            for (int j = 0; j < THREADS; j++) {
                check(pthread_create(&thread, 0, keeping_thread, 0) == 0 && read(up[0], &byte, 1) == 1);
            }
            check(write(ends[1], "", 1) == 1);
            exit(0);
        }
        check(child > 0 && read(ends[0], &byte, 1) == 1);
        spin(i * 7919 % 8000 * 1000l);
        check(kill(child, SIGKILL) == 0 && waitpid(child, 0, 0) == child);
    }
    say("done");
    return 0;
}
