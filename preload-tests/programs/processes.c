// Processes of more than common kinds, as the first argument names them; each keeps a block, and loses one where the second says "lose".
#include "test.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

static int lost;
static void *volatile kept;
static NOINLINE void keep(void) { kept = memset(malloc(500), 0, 500); }
static NOINLINE void lose(void) { memset(malloc(1337), 0, 1337); }

// Waits for the child, and says its pid and its status.
static void await(pid_t child) {
    int status = 0;
    check(child > 0 && waitpid(child, &status, 0) == child);
    char line[64];
    snprintf(line, sizeof line, "%d %d", (int)child, WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status));
    say(line);
}

// Handlers around fork that allocate: what each has made it keeps, or loses.
static void *volatile kept_by[3];
static int calls[3];
static NOINLINE void *in_prepare(void) { return memset(malloc(307), 0, 307); }
static NOINLINE void *in_parent(void) { return memset(malloc(409), 0, 409); }
static NOINLINE void *in_child(void) { return memset(malloc(503), 0, 503); }
static void handle(int which, void *(*make)(void)) {
    calls[which]++;
    for (int i = 0; i < 100; i++) free(realloc(malloc((size_t)i * 13), 5000));
    free(kept_by[which]);
    kept_by[which] = 0;
    void *volatile block = make();
    if (!lost) kept_by[which] = block;
    block = 0;
}
static void prepare(void) { handle(0, in_prepare); }
static void parent(void) { handle(1, in_parent); }
static void child(void) { handle(2, in_child); }

static int over;
static void *allocating_thread(void *_) {
    while (!__atomic_load_n(&over, __ATOMIC_SEQ_CST)) free(realloc(malloc(100), 3000));
    return _;
}
static pid_t forked(void) {
    pid_t process = fork();
    check(process >= 0);
    return process;
}
static void around_forks(void) {
    enum { FORKS = 50 };
    pthread_t threads[3];
    check(pthread_atfork(prepare, parent, child) == 0);
    for (int i = 0; i < 3; i++) check(pthread_create(&threads[i], 0, allocating_thread, 0) == 0);
    for (int i = 1; i <= FORKS; i++) {
        pid_t process = forked();
        if (process == 0) {
            alarm(20);
            scrub();
            check(calls[0] == i && calls[1] == i - 1 && calls[2] == 1);
            if (i < FORKS) _exit(0);
            scan();
            scan();
            _exit(4);
        }
        scrub();
        if (i == FORKS) {
            await(process);
        } else {
            int status = 0;
            check(waitpid(process, &status, 0) == process && status == 0);
        }
    }
    check(calls[0] == FORKS && calls[1] == FORKS && calls[2] == 0);
    scan();
    scan();
    __atomic_store_n(&over, 1, __ATOMIC_SEQ_CST);
    for (int i = 0; i < 3; i++) check(pthread_join(threads[i], 0) == 0);
}

// A daemon as it is in the book, but that its ancestor here waits for it and says when it is gone. It ends by SIGUSR1.
static volatile sig_atomic_t told;
static void hear_signal(int _) {
    (void)_;
    told = 1;
}
static void be_daemon(int ready) {
    sigset_t none, usr1;
    sigemptyset(&none);
    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);
    sigprocmask(SIG_BLOCK, &usr1, 0);
    signal(SIGUSR1, hear_signal);
    pid_t self = getpid();
    check(write(ready, &self, sizeof self) == sizeof self);
    for (int fd = 0; fd < 1024; fd++) close(fd);
    if (lost) below(lose);
    alarm(60);
    scrub();
    while (!told) sigsuspend(&none);
    exit(0);
}
static void as_daemon(void) {
    int ready[2];
    check(pipe(ready) == 0 && prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0);
    pid_t first = forked();
    if (first == 0) {
        check(setsid() == getpid() && chdir("/") == 0);
        umask(0);
        if (forked() > 0) _exit(4);
        be_daemon(ready[1]);
    }
    await(first);
    pid_t daemon;
    check(close(ready[1]) == 0 && read(ready[0], &daemon, sizeof daemon) == sizeof daemon);
    // Until that end is closed, too.
    char byte;
    check(read(ready[0], &byte, 1) == 0);
    char line[32];
    snprintf(line, sizeof line, "%d", (int)daemon);
    say(line);
    await(daemon);
}

// The first process of a namespace: its pid is 1, and what /proc says, if it is not mounted anew, are the pids of another one.
static int up[2], never[2];
static void *waiting_thread(void *_) {
    void *volatile block = memset(malloc(500), 0, 500);
    char byte;
    check(write(up[1], "", 1) == 1 && read(never[0], &byte, 1) == 1);
    return (void)_, block;
}
// One that computes, and has the address of a block in a register.
static uintptr_t hidden;
static NOINLINE void *make(void) { return memset(malloc(1009), 0, 1009); }
static NOINLINE void put_hidden(void) { hidden = ~(uintptr_t)make(); }
static void *register_thread(void *_) {
    (void)_;
    below(put_hidden);
    __asm__ volatile("mov %[hidden], %%rbx\n not %%rbx\n"
                     "mov %[fd], %%edi\n mov $1, %%eax\n lea %[byte], %%rsi\n mov $1, %%edx\n syscall\n"
                     "1: pause\n jmp 1b"
                     :
                     : [hidden] "m"(hidden), [fd] "m"(up[1]), [byte] "m"(lost)
                     : "rbx", "rax", "rcx", "rdx", "rsi", "rdi", "r11", "memory");
    return 0;
}
static void write_to(const char *path, const char *text) {
    int file = open(path, O_WRONLY);
    check(file >= 0 && write(file, text, strlen(text)) == (ssize_t)strlen(text) && close(file) == 0);
}
// A container may allow none, and in a chroot nothing can be mounted so.
static void need(int holds) {
    if (holds) return;
    say("no namespaces here");
    _exit(95);
}
static void in_namespace(void *(*routine)(void *), int mounts) {
    char map[64];
    if (geteuid() != 0) {
        snprintf(map, sizeof map, "0 %d 1", (int)geteuid());
        need(unshare(CLONE_NEWUSER) == 0);
        write_to("/proc/self/uid_map", map);
    }
    need(unshare(CLONE_NEWPID) == 0);
    pid_t process = forked();
    if (process == 0) {
        check(getpid() == 1);
        if (mounts) {
            need(unshare(CLONE_NEWNS) == 0 && mount("none", "/", 0, MS_REC | MS_PRIVATE, 0) == 0);
            need(mount("proc", "/proc", "proc", 0, 0) == 0);
        }
        if (routine) {
            pthread_t thread;
            char byte;
            check(pipe(up) == 0 && pipe(never) == 0);
            check(pthread_create(&thread, 0, routine, 0) == 0 && read(up[0], &byte, 1) == 1);
        }
        if (lost) below(lose);
        scan();
        scan();
        exit(4);
    }
    await(process);
}

// The status and the output are its own.
static void with_output(void) {
    if (lost) below(lose);
    scan();
    say("out");
    check(write(2, "error\n", 6) == 6);
    exit(7);
}

int main(int count, char **words) {
    check(count >= 3);
    const char *what = words[1];
    lost = is(words[2], "lose");
    below(keep);
    if (is(what, "around_forks")) around_forks();
    else if (is(what, "daemon")) as_daemon();
    else if (is(what, "namespace")) in_namespace(0, 0);
    else if (is(what, "namespace_and_threads")) in_namespace(waiting_thread, 0);
    else if (is(what, "namespace_and_proc")) in_namespace(waiting_thread, 1);
    else if (is(what, "namespace_and_register")) in_namespace(register_thread, 0);
    else if (is(what, "namespace_and_proc_and_register")) in_namespace(register_thread, 1);
    else if (is(what, "output")) with_output();
    else return 96;
    exit(0);
}
