// Processes that this one starts, in the way that the first argument names.
#include "test.h"
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>

extern char **environ;

// libc waits for a stream's lock in fork, whose holder allocates.
static ssize_t allocating_write(void *_, const char *bytes, size_t length) {
    (void)_, (void)bytes;
    void *blocks[100];
    for (int i = 0; i < 100; i++) blocks[i] = malloc(4000);
    for (int i = 0; i < 100; i++) free(blocks[i]);
    return length;
}
static volatile int flushed_enough;
static void *flushing_thread(void *_) {
    cookie_io_functions_t functions = {.write = allocating_write};
    FILE *stream = fopencookie(0, "w", functions);
    while (!flushed_enough) {
        fputs("x", stream);
        fflush(0);
    }
    fclose(stream);
    return _;
}
static void flushing(void) {
    pthread_t thread;
    pthread_create(&thread, 0, flushing_thread, 0);
    for (int i = 0; i < 500; i++) {
        pid_t child = fork();
        if (child == 0) {
            alarm(20);
            for (int n = 0; n < 300; n++) free(malloc((size_t)n * 13));
            _exit(0);
        }
        int status = 0;
        check(waitpid(child, &status, 0) == child && status == 0);
    }
    flushed_enough = 1;
    pthread_join(thread, 0);
}

// A signal handler that forks, in the midst of malloc and free.
static volatile int forked;
static void forking_handler(int _) {
    (void)_;
    pid_t child = fork();
    if (child == 0) _exit(0);
    waitpid(child, 0, 0);
    forked++;
}
static void forking(void) {
    struct itimerval each = {{0, 1000}, {0, 1000}}, none = {{0, 0}, {0, 0}};
    void *blocks[5000] = {0};
    signal(SIGALRM, forking_handler);
    setitimer(ITIMER_REAL, &each, 0);
    for (unsigned number = 1; forked < 600;) {
        number = number * 1103515245 + 12345;
        void **block = &blocks[(number >> 8) % 5000];
        free(*block);
        *block = malloc(3000 + (number >> 20) % 1000);
    }
    setitimer(ITIMER_REAL, &none, 0);
    for (int i = 0; i < 5000; i++) free(blocks[i]);
}
static NOINLINE void lose_in_child(void) { memset(malloc(203), 0, 203); }
static NOINLINE void lose_in_parent(void) { memset(malloc(1337), 0, 1337); }

// Waits for the child, and says its pid and its status.
static void await(pid_t child) {
    int status = 0;
    check(child > 0 && waitpid(child, &status, 0) == child);
    char line[64];
    snprintf(line, sizeof line, "%d %d", (int)child, WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status));
    say(line);
}

static void *volatile kept;
static NOINLINE void keep(void) { kept = malloc(500); }

static volatile int over;
static void *allocating_thread(void *seed) {
    unsigned number = (unsigned)(uintptr_t)seed;
    void *window[1000] = {0};
    while (!over) {
        number = number * 1664525 + 1013904223;
        unsigned place = (number >> 8) % 1000;
        free(window[place]);
        window[place] = malloc(16 + (number >> 20));
    }
    for (int i = 0; i < 1000; i++) free(window[i]);
    return 0;
}
// Forks from a program whose threads allocate; each child allocates too.
static void storm(int children, const char *how) {
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) pthread_create(&threads[i], 0, allocating_thread, (void *)(uintptr_t)(i + 1));
    for (int number = 0; number < children; number++) {
        pid_t child = fork();
        if (child == 0) {
            alarm(20);
            for (int i = 0; i < 3000; i++) free(malloc((size_t)i % 2000));
            if (is(how, "scan")) LEAKSCAN_SCAN();
            if (is(how, "exit")) exit(0);
            // No handler of the program's runs.
            if (is(how, "sudden")) syscall(SYS_exit_group, 0);
            _exit(0);
        }
        int status = 0;
        check(waitpid(child, &status, 0) == child && status == 0);
    }
    over = 1;
    for (int i = 0; i < 4; i++) pthread_join(threads[i], 0);
}

// The thread that forks is not main; the others' stacks are left behind in the child.
static int ready[2], never[2];
static NOINLINE void *hold(void) { return memset(malloc(1009), 0, 1009); }
static void *holding_thread(void *_) {
    (void)_;
    void *volatile block = hold();
    char byte;
    check(write(ready[1], "", 1) == 1 && read(never[0], &byte, 1) == 1);
    return block;
}
static void *forking_thread(void *_) {
    (void)_;
    pid_t child = fork();
    if (child == 0) {
        below(lose_in_child);
        exit(4);
    }
    await(child);
    return 0;
}

int main(int count, char **words) {
    check(count >= 2);
    const char *how = words[1];
    pid_t child;
    below(keep);
    if (is(how, "fork")) {
        child = fork();
        if (child == 0) {
            below(lose_in_child);
            exit(4);
        }
        await(child);
        below(lose_in_parent);
    } else if (is(how, "clean_fork")) {
        child = fork();
        if (child == 0) {
            free(kept);
            exit(4);
        }
        await(child);
    } else if (is(how, "scanned_fork")) {
        child = fork();
        if (child == 0) {
            scan();
            exit(4);
        }
        await(child);
    } else if (is(how, "fork_after_scan")) {
        below(lose_in_parent);
        scan();
        child = fork();
        if (child == 0) {
            scan();
            exit(4);
        }
        await(child);
        scan();
    } else if (is(how, "grandchild")) {
        child = fork();
        if (child == 0) {
            pid_t other = fork();
            if (other == 0) {
                below(lose_in_child);
                exit(5);
            }
            await(other);
            exit(4);
        }
        await(child);
    } else if (is(how, "fork_of_thread")) {
        pthread_t holding, forking;
        check(pipe(ready) == 0 && pipe(never) == 0);
        pthread_create(&holding, 0, holding_thread, 0);
        char byte;
        check(read(ready[0], &byte, 1) == 1);
        pthread_create(&forking, 0, forking_thread, 0);
        pthread_join(forking, 0);
    } else if (is(how, "vfork")) {
        // The child runs in this memory: what it ends with is no end of ours.
        child = vfork();
        if (child == 0) _exit(4);
        await(child);
        child = vfork();
        if (child == 0) {
            execl("/bin/true", "true", (char *)0);
            _exit(5);
        }
        await(child);
        child = vfork();
        if (child == 0) {
            execl("/no/such/program", "", (char *)0);
            _exit(6);
        }
        await(child);
        below(lose_in_parent);
    } else if (is(how, "spawn")) {
        char *arguments[] = {"true", 0};
        check(posix_spawn(&child, "/bin/true", 0, 0, arguments, environ) == 0);
        await(child);
        check(posix_spawn(&child, "/no/such/program", 0, 0, arguments, environ) == ENOENT);
        check(system("exit 3") == 3 << 8);
        below(lose_in_parent);
    } else if (is(how, "daemon")) {
        child = fork();
        if (child == 0) {
            check(daemon(0, 1) == 0);
            below(lose_in_child);
            exit(0);
        }
        await(child);
    } else if (is(how, "flushing")) {
        flushing();
    } else if (is(how, "forking")) {
        forking();
    } else if (is(how, "storm")) {
        storm(atoi(words[2]), words[3]);
    } else if (is(how, "lose")) {
        below(lose_in_parent);
    } else {
        return 96;
    }
    free(kept);
    return 0;
}
