// A thread receives a byte at a time from a socket with a timeout of a minute, at one and the same place. A scan is made in each wait, and
// none ends early.
#include "test.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>

enum { ROUNDS = 20 };
static int ends[2], told[2];
static volatile int receiver;

static void *receive(void *_) {
    receiver = gettid();
    for (int round = 0; round < ROUNDS; round++) {
        char byte;
        ssize_t got = recv(ends[0], &byte, 1, 0);
        if (got != 1) say(strerrorname_np(errno));
        check(got == 1 && write(told[1], &byte, 1) == 1);
    }
    return _;
}

static void wait_until_it_receives(void) {
    char path[64], text[256], wanted[16];
    snprintf(path, sizeof path, "/proc/self/task/%d/syscall", receiver);
    snprintf(wanted, sizeof wanted, "%d ", SYS_recvfrom);
    do {
        sched_yield();
        int call = open(path, O_RDONLY);
        ssize_t length = read(call, text, sizeof text - 1);
        check(length >= 0 && close(call) == 0);
        text[length] = 0;
    } while (strncmp(text, wanted, strlen(wanted)));
}

int main(void) {
    struct timeval minute = {.tv_sec = 60};
    check(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0 && pipe(told) == 0);
    check(setsockopt(ends[0], SOL_SOCKET, SO_RCVTIMEO, &minute, sizeof minute) == 0);
    pthread_t thread;
    check(pthread_create(&thread, 0, receive, 0) == 0);
    while (!receiver) sched_yield();
    for (int round = 0; round < ROUNDS; round++) {
        wait_until_it_receives();
        scan();
        // (A byte that is there before it waits again comes in one and the same run of it, and this wait and the next look like one.)
        wait_until_it_receives();
        char byte;
        check(write(ends[1], "", 1) == 1 && read(told[0], &byte, 1) == 1);
    }
    return pthread_join(thread, 0);
}
