// Loses a block of 1337 bytes, says `up`, and waits in the way that the first argument names for a line. A further line ends
// it. A second argument is a number of MiB to hold meanwhile. With `busy` it allocates all the while.
#include "test.h"
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/select.h>

static NOINLINE void lose(void) { memset(malloc(1337), 0, 1337); }
static void *waiting_thread(void *_) {
    (void)_;
    hear();
    return 0;
}
static void *blocking_thread(void *_) {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, 0);
    return waiting_thread(_);
}
// Says so when the first thread has ended.
static void *thread_without_main(void *_) {
    char state = 0, *name_end, line[512];
    do {
        FILE *file = fopen("/proc/self/stat", "r");
        check(file && fgets(line, sizeof line, file) && (name_end = strrchr(line, ')')));
        fclose(file);
        state = name_end[2];
    } while (state != 'Z');
    say("gone");
    return waiting_thread(_);
}
static int any_input(int timeout) {
    struct pollfd input = {.fd = 0, .events = POLLIN};
    return poll(&input, 1, timeout);
}
static NOINLINE void churn(void) {
    void *volatile block = malloc(100);
    free(block);
}

int main(int count, char **words) {
    check(count >= 2);
    const char *way = words[1];
    below(lose);
    static void *volatile held;
    size_t size = count > 2 ? (size_t)atoi(words[2]) << 20 : 0;
    if (size) held = memset(malloc(size), 1, size);
    say("up");
    pthread_t thread;
    if (is(way, "read")) {
        hear();
    } else if (is(way, "poll")) {
        while (any_input(-1) < 0) {
        }
        hear();
    } else if (is(way, "select")) {
        fd_set set;
        do {
            FD_ZERO(&set);
            FD_SET(0, &set);
        } while (select(1, &set, 0, 0, 0) < 0);
        hear();
    } else if (is(way, "epoll")) {
        int epoll = epoll_create1(0);
        struct epoll_event event = {.events = EPOLLIN};
        epoll_ctl(epoll, EPOLL_CTL_ADD, 0, &event);
        while (epoll_wait(epoll, &event, 1, -1) < 0) {
        }
        hear();
    } else if (is(way, "join")) {
        pthread_create(&thread, 0, waiting_thread, 0);
        pthread_join(thread, 0);
    } else if (is(way, "blocked_in_main")) {
        sigset_t all;
        sigfillset(&all);
        pthread_create(&thread, 0, waiting_thread, 0);
        pthread_sigmask(SIG_SETMASK, &all, 0);
        pthread_join(thread, 0);
    } else if (is(way, "blocked_in_thread")) {
        pthread_create(&thread, 0, blocking_thread, 0);
        pthread_join(thread, 0);
    } else if (is(way, "gone")) {
        pthread_create(&thread, 0, thread_without_main, 0);
        pthread_exit(0);
    } else if (is(way, "busy")) {
        while (any_input(0) == 0) {
            for (int i = 0; i < 5000; i++) churn();
        }
        hear();
    } else if (is(way, "spin")) {
        while (any_input(0) == 0) {
        }
        hear();
    } else {
        return 96;
    }
    return 0;
}
