// Writes down what a program can see of its own process, after three scans of different kinds: the same as without us.
#include "test.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>

static volatile int children_ended;
static void on_child(int _) {
    (void)_;
    children_ended++;
}

// Three scans, with errno as it was after each.
static void scans(void) {
    for (int i = 0; i < 2; i++) {
        errno = 77;
        scan();
        check(errno == 77);
    }
    // As `leakscan scan` asks, where that signal is ours.
    struct sigaction action;
    sigaction(58, 0, &action);
    if (action.sa_handler != SIG_DFL) kill(getpid(), 58);
    check(errno == 77);
}

static int entries(const char *directory) {
    DIR *open = opendir(directory);
    int count = 0;
    while (readdir(open)) count++;
    closedir(open);
    return count - 2;
}

static void descriptors(void) {
    // Numbers that are free are given out in order: a new one shows whether we have taken any.
    for (int fd = 0; fd < 1024; fd++) {
        struct stat status;
        if (fstat(fd, &status) == 0) printf("fd %d: %o\n", fd, status.st_mode & S_IFMT);
    }
    int next = open("/dev/null", O_RDONLY);
    printf("next %d\n", next);
    close(next);
}

// Bytes and errors that wait in sockets are the program's.
static void sockets(void) {
    int marked[2], broken[2], zero = 0;
    char bytes[8] = "";
    check(socketpair(AF_UNIX, SOCK_STREAM, 0, marked) == 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, broken) == 0);
    check(setsockopt(marked[1], SOL_SOCKET, SO_PEEK_OFF, &zero, sizeof zero) == 0);
    check(write(marked[0], "hello", 5) == 5 && write(broken[0], "x", 1) == 1 && close(broken[1]) == 0);
    scans();
    printf("peeked %zd\n", recv(marked[1], bytes, sizeof bytes, MSG_PEEK | MSG_DONTWAIT));
    printf("read %zd", read(broken[0], bytes, sizeof bytes));
    printf(" %d\n", errno);
}

static void signals(void) {
    for (int number = 1; number <= 64; number++) {
        struct sigaction action;
        if (number == 58 || sigaction(number, 0, &action) != 0) continue;
        if (action.sa_handler != SIG_DFL) printf("signal %d: handled\n", number);
    }
    sigset_t blocked, pending;
    pthread_sigmask(SIG_SETMASK, 0, &blocked);
    sigpending(&pending);
    for (int number = 1; number <= 64; number++) {
        if (sigismember(&blocked, number) == 1) printf("signal %d: blocked\n", number);
        if (sigismember(&pending, number) == 1) printf("signal %d: pending\n", number);
    }
    stack_t stack;
    sigaltstack(0, &stack);
    printf("alternate stack: %d\n", stack.ss_flags);
}

static void children(void) {
    int status;
    errno = 0;
    check(waitpid(-1, &status, WNOHANG) == -1 && errno == ECHILD);
    siginfo_t info;
    check(waitid(P_ALL, 0, &info, WEXITED | WNOHANG) == -1 && errno == ECHILD);
    pid_t own = fork();
    if (own == 0) _exit(7);
    scans();
    check(wait(&status) == own && WEXITSTATUS(status) == 7);
    check(wait(&status) == -1 && errno == ECHILD);
    printf("children seen to end: %d\n", children_ended);
    printf("system: %d\n", WEXITSTATUS(system("exit 3")));
    FILE *other = popen("echo from a child", "r");
    char line[100] = "";
    check(fgets(line, sizeof line, other) != 0);
    printf("%s", line);
    printf("popen: %d\n", WEXITSTATUS(pclose(other)));
    printf("children seen to end: %d\n", children_ended);
}

static void limits_and_more(void) {
    printf("nice %d\n", getpriority(PRIO_PROCESS, 0));
    struct itimerval timer;
    getitimer(ITIMER_REAL, &timer);
    printf("timer %ld\n", timer.it_value.tv_sec);
    char line[64] = "";
    int score = open("/proc/self/oom_score_adj", O_RDONLY);
    check(read(score, line, sizeof line) > 0);
    printf("oom %s", line);
    close(score);
    mode_t mask = umask(0);
    printf("umask %o\n", mask);
    umask(mask);
    printf("threads %d\n", entries("/proc/self/task"));
    char name[1024] = "";
    check(getcwd(name, sizeof name) != 0);
    printf("here %s\n", name);
}

int main(int count, char **words) {
    check(count == 2);
    struct sigaction action = {.sa_handler = on_child};
    if (is(words[1], "children")) sigaction(SIGCHLD, &action, 0);
    scans();
    if (is(words[1], "descriptors")) descriptors();
    if (is(words[1], "sockets")) sockets();
    if (is(words[1], "signals")) signals();
    if (is(words[1], "children")) children();
    if (is(words[1], "more")) limits_and_more();
    fprintf(stderr, "to stderr\n");
    return 17;
}
