// Sits in the blocking call that the argument names while a scan is made, and says what the call gave: `goes on` if it did not
// come back, or what it gave too early. Then what it waits for comes, and it must give that. Without an argument: all names.
#include "test.h"
#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/msg.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

static int ends[2], other[2], file, epoll, queue;
static char bytes[1 << 16];
static pthread_t caller;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER, free_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static pthread_barrier_t barrier;
static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;
static sem_t semaphore;
static mqd_t messages;
static volatile int flag;
static pid_t child;
static const struct timespec MINUTE = {.tv_sec = 60};
static struct timespec in_a_minute(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    now.tv_sec += 60;
    return now;
}

static void make_pipe(void) { check(pipe(ends) == 0); }
static void make_pipes(void) {
    make_pipe();
    check(pipe(other) == 0);
}
static void make_full_pipe(void) {
    make_pipe();
    check(fcntl(ends[1], F_SETFL, O_NONBLOCK) == 0);
    while (write(ends[1], bytes, sizeof bytes) > 0) {
    }
    check(fcntl(ends[1], F_SETFL, 0) == 0);
}
static void make_sockets(void) { check(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0); }
static void make_full_socket(void) {
    make_sockets();
    while (send(ends[1], bytes, sizeof bytes, MSG_DONTWAIT) > 0) {
    }
}
static void make_sockets_with_timeout(void) {
    struct timeval minute = {.tv_sec = 60};
    make_sockets();
    check(setsockopt(ends[0], SOL_SOCKET, SO_RCVTIMEO, &minute, sizeof minute) == 0);
}
static struct sockaddr_un address = {.sun_family = AF_UNIX};
static void make_listener(void) {
    snprintf(address.sun_path + 1, sizeof address.sun_path - 1, "leakscan-blocking-%d", getpid());
    ends[0] = socket(AF_UNIX, SOCK_STREAM, 0);
    ends[1] = socket(AF_UNIX, SOCK_STREAM, 0);
    check(bind(ends[0], (void *)&address, sizeof address) == 0 && listen(ends[0], 0) == 0);
}
static void make_busy_listener(void) {
    make_listener();
    other[0] = socket(AF_UNIX, SOCK_STREAM, 0);
    check(connect(other[0], (void *)&address, sizeof address) == 0);
}
static void make_epoll(void) {
    make_pipe();
    epoll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN};
    check(epoll_ctl(epoll, EPOLL_CTL_ADD, ends[0], &event) == 0);
}
static void make_semaphores(void) { check((queue = semget(IPC_PRIVATE, 1, 0600)) >= 0); }
static void make_queue(void) { check((queue = msgget(IPC_PRIVATE, 0600)) >= 0); }
static void make_full_queue(void) {
    make_queue();
    struct { long kind; char text[1024]; } message = {.kind = 1};
    while (msgsnd(queue, &message, sizeof message.text, IPC_NOWAIT) == 0) {
    }
}
static void make_messages(void) {
    char name[64];
    struct mq_attr attributes = {.mq_maxmsg = 1, .mq_msgsize = 16};
    snprintf(name, sizeof name, "/leakscan-blocking-%d", getpid());
    messages = mq_open(name, O_CREAT | O_RDWR, 0600, &attributes);
    check(messages != -1);
    mq_unlink(name);
}
static void make_child(void) {
    make_pipe();
    if (!(child = fork())) {
        close(ends[1]);
        char byte;
        _exit(read(ends[0], &byte, 1) == 1 ? 7 : 8);
    }
}
static void make_locked_file(void) {
    char name[] = "/tmp/leakscan-blocking-XXXXXX";
    file = mkstemp(name);
    check(file >= 0);
    other[0] = open(name, O_RDWR);
    make_pipe();
    // A record lock is a process's: another one has to hold it.
    if (!(child = fork())) {
        struct flock all = {.l_type = F_WRLCK};
        int own = open(name, O_RDWR);
        check(fcntl(own, F_SETLK, &all) == 0 && flock(own, LOCK_EX) == 0);
        raise(SIGSTOP);
        _exit(0);
    }
    int status;
    check(waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status));
    unlink(name);
}
static char fifo[64];
static void make_fifo(void) {
    snprintf(fifo, sizeof fifo, "/tmp/leakscan-blocking-%d", getpid());
    check(mkfifo(fifo, 0600) == 0);
}
static void make_inotify(void) {
    char folder[] = "/tmp/leakscan-blocking-XXXXXX";
    check(mkdtemp(folder));
    strcpy(fifo, folder);
    ends[0] = inotify_init();
    check(inotify_add_watch(ends[0], folder, IN_DELETE_SELF) >= 0);
}
static void make_event(void) { check((ends[0] = ends[1] = eventfd(0, 0)) >= 0); }
static void make_timer(void) { check((ends[0] = timerfd_create(CLOCK_MONOTONIC, 0)) >= 0); }
static void make_signal(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    ends[0] = signalfd(-1, &set, 0);
}
static void on_signal(int number) { flag = number; }
static void make_handler(void) {
    make_signal();
    signal(SIGUSR1, on_signal);
}
static void make_locks(void) {
    pthread_mutex_lock(&mutex);
    pthread_rwlock_wrlock(&lock);
    pthread_barrier_init(&barrier, NULL, 2);
    sem_init(&semaphore, 0, 0);
}
static void *wait_for_end(void *_) {
    char byte;
    check(read(ends[0], &byte, 1) == 1);
    return _;
}
static pthread_t joined;
static void make_thread(void) {
    make_pipe();
    check(pthread_create(&joined, NULL, wait_for_end, NULL) == 0);
}

static void give_byte(void) { check(write(ends[1], "12345678", 8) == 8); }
static volatile int done;
static void take_bytes(void) {
    check(fcntl(ends[0], F_SETFL, O_NONBLOCK) == 0);
    while (!done) {
        if (read(ends[0], bytes, sizeof bytes) < 0) sched_yield();
    }
}
static void be_client(void) { check(connect(ends[1], (void *)&address, sizeof address) == 0); }
static void accept_first(void) { check(accept(ends[0], NULL, NULL) >= 0); }
static void signal_caller(void) { pthread_kill(caller, SIGUSR1); }
static void raise_semaphore(void) {
    struct sembuf up = {.sem_op = 1};
    check(semop(queue, &up, 1) == 0);
}
static void send_message(void) {
    struct { long kind; char text[8]; } message = {.kind = 1};
    check(msgsnd(queue, &message, sizeof message.text, 0) == 0);
}
static void take_message(void) {
    struct { long kind; char text[1024]; } message;
    check(msgrcv(queue, &message, sizeof message.text, 0, 0) >= 0);
}
static void post_message(void) { check(mq_send(messages, "x", 1, 0) == 0); }
static void end_holder(void) { kill(child, SIGKILL); }
static void open_other_end(void) { check(open(fifo, O_WRONLY) >= 0); }
static void remove_folder(void) { check(rmdir(fifo) == 0); }
static void arm_timer(void) {
    struct itimerspec soon = {.it_value.tv_nsec = 1};
    check(timerfd_settime(ends[0], 0, &soon, NULL) == 0);
}
static void unlock_mutex(void) { pthread_mutex_unlock(&mutex); }
static void unlock_rwlock(void) { pthread_rwlock_unlock(&lock); }
static void set_condition(void) {
    pthread_mutex_lock(&free_mutex);
    flag = 1;
    pthread_cond_signal(&condition);
    pthread_mutex_unlock(&free_mutex);
}
static void meet(void) { pthread_barrier_wait(&barrier); }
static void post(void) { sem_post(&semaphore); }
static long sleeps(int result) { return result == -1 ? -1 : 0; }
// A sleep has nobody to end it: the handler of a signal does.
static void let_signal_in(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}
static sigset_t none(void) {
    sigset_t set;
    sigemptyset(&set);
    return set;
}
static sigset_t user_signal(void) {
    sigset_t set = none();
    sigaddset(&set, SIGUSR1);
    return set;
}
static struct msghdr header(void) {
    static struct iovec vector = {bytes, 8};
    return (struct msghdr){.msg_iov = &vector, .msg_iovlen = 1};
}

#define ERROR(number) ((errno = (number)) ? -1 : 0)
// name, before, the call, after, whether the end is a signal (the call gives EINTR then)
#define CALLS(_)                                                                                                       \
    _(read_of_pipe, make_pipe, read(ends[0], bytes, 8), give_byte, 0)                                                  \
    _(readv_of_pipe, make_pipe, readv(ends[0], &(struct iovec){bytes, 8}, 1), give_byte, 0)                            \
    _(write_to_full_pipe, make_full_pipe, write(ends[1], bytes, 4096), take_bytes, 0)                                  \
    _(splice, make_pipes, splice(ends[0], NULL, other[1], NULL, 8, 0), give_byte, 0)                                   \
    _(tee, make_pipes, tee(ends[0], other[1], 8, 0), give_byte, 0)                                                     \
    _(recv, make_sockets, recv(ends[0], bytes, 8, 0), give_byte, 0)                                                    \
    _(recv_with_timeout, make_sockets_with_timeout, recv(ends[0], bytes, 8, 0), give_byte, 0)                          \
    _(recvmsg, make_sockets, recvmsg(ends[0], ({ static struct msghdr message; message = header(); &message; }), 0), give_byte, 0) \
    _(recvmmsg, make_sockets, recvmmsg(ends[0], &(struct mmsghdr){header()}, 1, 0, NULL), give_byte, 0)                \
    _(send_to_full_socket, make_full_socket, send(ends[1], bytes, 4096, 0), take_bytes, 0)                             \
    _(accept, make_listener, accept(ends[0], NULL, NULL), be_client, 0)                                                \
    _(connect, make_busy_listener, connect(ends[1], (void *)&address, sizeof address), accept_first, 0)                \
    _(poll, make_pipe, poll(&(struct pollfd){ends[0], POLLIN}, 1, -1), give_byte, 0)                                   \
    _(poll_with_timeout, make_pipe, poll(&(struct pollfd){ends[0], POLLIN}, 1, 60000), give_byte, 0)                   \
    _(ppoll, make_pipe, ppoll(&(struct pollfd){ends[0], POLLIN}, 1, &MINUTE, NULL), give_byte, 0)                      \
    _(select, make_pipe, ({ fd_set set; FD_ZERO(&set); FD_SET(ends[0], &set); select(ends[0] + 1, &set, 0, 0, 0); }), give_byte, 0) \
    _(pselect, make_pipe, ({ fd_set set; FD_ZERO(&set); FD_SET(ends[0], &set); pselect(ends[0] + 1, &set, 0, 0, &MINUTE, 0); }), give_byte, 0) \
    _(epoll_wait, make_epoll, epoll_wait(epoll, &(struct epoll_event){0}, 1, -1), give_byte, 0)                        \
    _(epoll_wait_with_timeout, make_epoll, epoll_wait(epoll, &(struct epoll_event){0}, 1, 60000), give_byte, 0)        \
    _(epoll_pwait, make_epoll, epoll_pwait(epoll, &(struct epoll_event){0}, 1, -1, NULL), give_byte, 0)                \
    _(nanosleep, make_handler, (let_signal_in(), sleeps(nanosleep(&MINUTE, NULL))), signal_caller, 1)                  \
    _(clock_nanosleep, make_handler, (let_signal_in(), ERROR(clock_nanosleep(CLOCK_MONOTONIC, 0, &MINUTE, NULL))), signal_caller, 1) \
    _(sleep, make_handler, (let_signal_in(), sleep(60) ? ERROR(EINTR) : 0), signal_caller, 1)                          \
    _(pause, make_handler, (let_signal_in(), pause()), signal_caller, 1)                                               \
    _(sigsuspend, make_handler, ({ sigset_t set = none(); sigsuspend(&set); }), signal_caller, 1)                      \
    _(sigwait, make_signal, ({ sigset_t set = user_signal(); int got; ERROR(sigwait(&set, &got)); }), signal_caller, 0) \
    _(sigwaitinfo, make_signal, ({ sigset_t set = user_signal(); sigwaitinfo(&set, NULL); }), signal_caller, 0)        \
    _(sigtimedwait, make_signal, ({ sigset_t set = user_signal(); sigtimedwait(&set, NULL, &MINUTE); }), signal_caller, 0) \
    _(read_of_signalfd, make_signal, read(ends[0], bytes, 128), signal_caller, 0)                                      \
    _(read_of_eventfd, make_event, read(ends[0], bytes, 8), give_byte, 0)                                              \
    _(read_of_timerfd, make_timer, read(ends[0], bytes, 8), arm_timer, 0)                                              \
    _(read_of_inotify, make_inotify, read(ends[0], bytes, 4096), remove_folder, 0)                                     \
    _(open_of_fifo, make_fifo, open(fifo, O_RDONLY), open_other_end, 0)                                                \
    _(flock, make_locked_file, flock(other[0], LOCK_EX), end_holder, 0)                                                \
    _(fcntl_setlkw, make_locked_file, fcntl(file, F_SETLKW, &(struct flock){.l_type = F_WRLCK}), end_holder, 0)        \
    _(waitpid, make_child, waitpid(child, NULL, 0), give_byte, 0)                                                      \
    _(waitid, make_child, waitid(P_PID, child, &(siginfo_t){0}, WEXITED), give_byte, 0)                                \
    _(semop, make_semaphores, semop(queue, &(struct sembuf){.sem_op = -1}, 1), raise_semaphore, 0)                     \
    _(semtimedop, make_semaphores, semtimedop(queue, &(struct sembuf){.sem_op = -1}, 1, &MINUTE), raise_semaphore, 0)  \
    _(msgrcv, make_queue, msgrcv(queue, bytes, 8, 0, 0), send_message, 0)                                              \
    _(msgsnd, make_full_queue, (*(long *)bytes = 1, msgsnd(queue, bytes, 1024, 0)), take_message, 0)                   \
    _(mq_receive, make_messages, mq_receive(messages, bytes, 16, NULL), post_message, 0)                               \
    _(mq_timedreceive, make_messages, ({ struct timespec end = in_a_minute(); mq_timedreceive(messages, bytes, 16, NULL, &end); }), post_message, 0) \
    _(pthread_mutex_lock, make_locks, ERROR(pthread_mutex_lock(&mutex)), unlock_mutex, 0)                              \
    _(pthread_mutex_timedlock, make_locks, ({ struct timespec end = in_a_minute(); ERROR(pthread_mutex_timedlock(&mutex, &end)); }), unlock_mutex, 0) \
    _(pthread_rwlock_rdlock, make_locks, ERROR(pthread_rwlock_rdlock(&lock)), unlock_rwlock, 0)                        \
    _(pthread_cond_wait, make_locks, ({ pthread_mutex_lock(&free_mutex); int result = 0; while (!flag && !result) result = pthread_cond_wait(&condition, &free_mutex); ERROR(result); }), set_condition, 0) \
    _(pthread_cond_timedwait, make_locks, ({ struct timespec end = in_a_minute(); pthread_mutex_lock(&free_mutex); int result = 0; while (!flag && !result) result = pthread_cond_timedwait(&condition, &free_mutex, &end); ERROR(result); }), set_condition, 0) \
    _(pthread_barrier_wait, make_locks, (pthread_barrier_wait(&barrier), 0), meet, 0)                                  \
    _(pthread_join, make_thread, ERROR(pthread_join(joined, NULL)), give_byte, 0)                                      \
    _(sem_wait, make_locks, sem_wait(&semaphore), post, 0)                                                             \
    _(sem_timedwait, make_locks, ({ struct timespec end = in_a_minute(); sem_timedwait(&semaphore, &end); }), post, 0)

#define FUNCTION(name, before, call, after, by_signal) static long call_##name(void) { return (call); }
CALLS(FUNCTION)
static const struct Call {
    const char *name;
    void (*before)(void);
    long (*call)(void);
    void (*after)(void);
    int by_signal;
} calls[] = {
#define ROW(name, before, call, after, by_signal) {#name, before, call_##name, after, by_signal},
    CALLS(ROW)};

static const struct Call *chosen;
static volatile int thread_id;
static long result;
static int error;
static void *in_call(void *_) {
    thread_id = gettid();
    result = chosen->call();
    error = errno;
    __atomic_store_n(&done, 1, __ATOMIC_SEQ_CST);
    return _;
}
// Until the thread sleeps in the kernel, or is done.
static void wait_until_it_sleeps(void) {
    char path[64], text[256] = "";
    for (int in_a_row = 0; in_a_row < 20 && !done;) {
        snprintf(path, sizeof path, "/proc/self/task/%d/stat", thread_id);
        int stat = open(path, O_RDONLY);
        ssize_t length = stat < 0 ? 0 : read(stat, text, sizeof text - 1);
        close(stat);
        char *state = length > 0 ? strrchr(text, ')') : NULL;
        in_a_row = state && state[2] == 'S' ? in_a_row + 1 : 0;
        sched_yield();
    }
}
static void tell(const char *when) {
    char line[128];
    if (!done) snprintf(line, sizeof line, "%s: goes on", when);
    else if (result == -1) snprintf(line, sizeof line, "%s: %s", when, strerrorname_np(error));
    else snprintf(line, sizeof line, "%s: %s", when, result >= 0 ? "done" : "odd");
    say(line);
}

int main(int count, char **words) {
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        if (count < 2) say(calls[i].name);
        else if (is(words[1], calls[i].name)) chosen = &calls[i];
    }
    if (count < 2) return 0;
    check(chosen);
    chosen->before();
    check(pthread_create(&caller, NULL, in_call, NULL) == 0);
    while (!thread_id) sched_yield();
    wait_until_it_sleeps();
    check(!done);
    // As often as a second argument says.
    for (int left = count > 2 ? atoi(words[2]) : 1; left > 0 && !done; left--) {
        LEAKSCAN_SCAN();
        wait_until_it_sleeps();
        tell("scanned");
    }
    if (!done) {
        chosen->after();
        pthread_join(caller, NULL);
        tell("ended");
    }
    if (*fifo) remove(fifo);
    if (queue) semctl(queue, 0, IPC_RMID), msgctl(queue, IPC_RMID, NULL);
    if (child) kill(child, SIGKILL);
    return 0;
}
