// Keeps a block of 1337 bytes by one pointer that libc, the kernel or a thread has in trust, as the first argument names it; where the
// second is "lose" that one is cleared or taken back. Looks at it twice and ends.
#include "test.h"
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>

typedef void *volatile Slot;

static int lost;
static NOINLINE void *make(void) { return memset(malloc(1337), 0, 1337); }
// The address with all bits turned, so that no scan takes it for a pointer.
static uintptr_t hidden;
static NOINLINE void put_hidden(void) { hidden = ~(uintptr_t)make(); }
#define HIDDEN ((void *)~hidden)

static int ready[2], never[2];
static NOINLINE void park(void) {
    char byte;
    check(write(ready[1], "", 1) == 1 && read(never[0], &byte, 1) == 1);
}
static void wait_ready(void) {
    char byte;
    check(read(ready[0], &byte, 1) == 1);
}

// Mixed with the thread's secret, as libc does with pointers of its own; with a number of the program's, which no scan can know.
static uintptr_t secret(void) {
    uintptr_t value;
    __asm__("mov %%fs:0x30, %0" : "=r"(value));
    return value;
}
static volatile uintptr_t mixed;
static void mix(uintptr_t with) { mixed = lost ? 0 : (~hidden ^ with) << 17 | (~hidden ^ with) >> 47; }
static void mixed_with_secret(void) { mix(secret()); }
static void mixed_with_number(void) { mixed = lost ? 0 : ~hidden ^ 0x5a5a5a5a5a5a5a5a; }
// A list whose links are both neighbours in one: the program has its first two blocks, the third is ours.
static Slot list;
static void in_xor_list(void) {
    uintptr_t *first = calloc(1, 64), *second = calloc(1, 64);
    list = first;
    first[0] = (uintptr_t)second;
    second[0] = lost ? 0 : (uintptr_t)first ^ ~hidden;
}

// The arguments of functions that are called at exit.
static void at_exit(int status, void *argument) { (void)status, (void)argument; }
static void at_cxa_exit(void *argument) { (void)argument; }
int __cxa_atexit(void (*)(void *), void *, void *);
static void in_on_exit(void) { check(on_exit(at_exit, lost ? 0 : HIDDEN) == 0); }
static char library;
static void in_cxa_atexit(void) {
    check(__cxa_atexit(at_cxa_exit, lost ? 0 : HIDDEN, &library) == 0);
}

// The argument of a function that a timer will call in a thread.
static void at_time(union sigval value) { (void)value; }
static void in_thread_timer(void) {
    struct sigevent event = {.sigev_notify = SIGEV_THREAD, .sigev_notify_function = at_time};
    event.sigev_value.sival_ptr = HIDDEN;
    timer_t timer;
    check(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
    memset(&event, 0, sizeof event);
    if (lost) check(timer_delete(timer) == 0);
}

// The argument of a thread that has not come to its routine: the kernel holds it in a call of libc's before that, for a supervisor that
// never answers.
static volatile int has_begun;
static void *beginning_thread(void *argument) {
    has_begun = 1;
    return argument;
}
static void in_flight(void) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_set_robust_list, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {sizeof code / sizeof *code, code};
    check(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    int supervisor = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &filter);
    check(supervisor >= 0);
    pthread_t thread;
    check(pthread_create(&thread, 0, beginning_thread, lost ? 0 : HIDDEN) == 0);
    struct pollfd held = {.fd = supervisor, .events = POLLIN};
    check(poll(&held, 1, 10000) == 1 && !has_begun);
}

// A stack that the program has made for a thread which is on it: in a mapping, in a block.
enum { STACK = 256 << 10 };
static NOINLINE void *map(void) {
    // Closed pages around it, so that it is joined to nothing else.
    char *at = mmap(0, STACK + 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(at != MAP_FAILED && mprotect(at + 4096, STACK, PROT_READ | PROT_WRITE) == 0);
    return at + 4096;
}
static void *holding_thread(void *_) {
    (void)_;
    Slot local = lost ? 0 : HIDDEN;
    hidden = 0;
    scrub();
    park();
    return local;
}
static void start_on(void *stack) {
    pthread_t thread;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    check(pthread_attr_setstack(&attributes, stack, STACK) == 0);
    check(pthread_create(&thread, &attributes, holding_thread, 0) == 0);
    wait_ready();
}
static Slot stack_block;
static void on_given_mapping(void) { start_on(map()); }
static void on_given_block(void) { start_on(stack_block = memset(aligned_alloc(4096, STACK), 0, STACK)); }

// A thread that libc knows nothing of: it may not call libc. It says that it is ready and reads for ever.
#define READS_FOR_EVER                                                                                                  \
    "mov %[fd], %%edi\n mov $1, %%eax\n lea %[byte], %%rsi\n mov $1, %%edx\n syscall\n"                                 \
    "1: mov %[never], %%edi\n lea %[byte], %%rsi\n xor %%eax, %%eax\n mov $1, %%edx\n syscall\n jmp 1b"
#define ITS_INPUTS [hidden] "m"(hidden), [fd] "m"(ready[1]), [byte] "m"(mixed), [never] "m"(never[0])
#define ITS_CLOBBERS "rbx", "rax", "rcx", "rdx", "rsi", "rdi", "r11", "memory"
static int raw_thread(void *_) {
    (void)_;
    __asm__ volatile("mov %[hidden], %%rbx\n not %%rbx\n push %%rbx\n xor %%ebx, %%ebx\n" READS_FOR_EVER
                     :
                     : ITS_INPUTS
                     : ITS_CLOBBERS);
    return 0;
}
static int raw_register_thread(void *_) {
    (void)_;
    __asm__ volatile("mov %[hidden], %%rbx\n not %%rbx\n" READS_FOR_EVER : : ITS_INPUTS : ITS_CLOBBERS);
    return 0;
}
static void start_raw(int (*routine)(void *)) {
    if (lost) hidden = ~(uintptr_t)0;
    int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;
    check(clone(routine, (char *)map() + STACK, flags, 0) > 0);
    wait_ready();
}
static void on_stack_of_raw_thread(void) { start_raw(raw_thread); }
static void in_register_of_raw_thread(void) { start_raw(raw_register_thread); }

// What epoll has for a descriptor, where it is the lowest one and none is left: all others are in use, by what holds nothing.
static void use_up_descriptors(rlim_t soft, rlim_t hard, int (*another)(void)) {
    struct rlimit limit = {soft, hard};
    check(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    while (another() >= 0) {
    }
}
static int another_output(void) { return dup(2); }
static int another_device(void) { return open("/dev/null", O_RDONLY); }
static int another_epoll(void) { return epoll_create1(0); }
static NOINLINE void put_in_epolls(void) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = lost ? 0 : HIDDEN};
    close(0);
    close(1);
    check(epoll_create1(0) == 0 && epoll_create1(0) == 1);
    check(epoll_ctl(0, EPOLL_CTL_ADD, ready[0], &event) == 0);
    event.data.ptr = 0;
}
static void in_epoll_among_outputs(void) {
    below(put_in_epolls);
    use_up_descriptors(64, 64, another_output);
}
static void in_epoll_among_devices(void) {
    below(put_in_epolls);
    use_up_descriptors(64, 64, another_device);
}
static void in_epoll_under_low_limit(void) {
    below(put_in_epolls);
    use_up_descriptors(64, 128, another_epoll);
}
// And where all that there are may hold something.
static void in_epoll_among_epolls(void) {
    below(put_in_epolls);
    for (int other = 2; other < 64; other++)
        if (other != ready[0]) close(other);
    use_up_descriptors(64, 64, another_epoll);
}
// The last of many, in the order in which the kernel tells of them: a file's by their numbers.
static NOINLINE void put_last_in_epoll(void) {
    enum { MANY = 4000 };
    struct rlimit limit = {MANY + 100, MANY + 100};
    check(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    int epoll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN};
    for (int i = 1; i < MANY; i++) check(epoll_ctl(epoll, EPOLL_CTL_ADD, dup(ready[0]), &event) == 0);
    event.data.ptr = lost ? 0 : HIDDEN;
    check(epoll_ctl(epoll, EPOLL_CTL_ADD, dup(ready[0]), &event) == 0);
    event.data.ptr = 0;
}
static void in_epoll_behind_many(void) { below(put_last_in_epoll); }

// Bytes on their way: the pointer's, behind `before` of zeros.
static int channel[2];
static void write_zeros(size_t before) {
    static char zeros[16 << 10];
    for (size_t part; before != 0; before -= part) {
        part = before < sizeof zeros ? before : sizeof zeros;
        check(write(channel[1], zeros, part) == (ssize_t)part);
    }
}
static NOINLINE void write_pointer(void) {
    uintptr_t word = lost ? 0 : ~hidden;
    check(write(channel[1], &word, sizeof word) == sizeof word);
}
static void in_pipe_behind(size_t before) {
    check(pipe2(channel, O_NONBLOCK) == 0 && fcntl(channel[1], F_SETPIPE_SZ, 1 << 20) == 1 << 20);
    write_zeros(before);
    below(write_pointer);
}
static void in_pipe_behind_100k(void) { in_pipe_behind(100 << 10); }
static void in_pipe_behind_900k(void) { in_pipe_behind(900 << 10); }
// Across the end of what is read at a time.
static void in_pipe_across_pieces(void) { in_pipe_behind((224 << 10) - 3); }
static void in_second_packet(void) {
    check(pipe2(channel, O_DIRECT | O_NONBLOCK) == 0);
    write_zeros(64);
    write_zeros(4096);
    below(write_pointer);
}
static void beside_written_pipe(void) {
    check(pipe2(channel, O_NONBLOCK) == 0);
    write_zeros(4096);
    check(close(channel[0]) == 0 && open("/proc/self/exe", O_RDONLY) >= 0);
}
static void make_sockets(int kind) { check(socketpair(AF_UNIX, kind | SOCK_NONBLOCK, 0, channel) == 0); }
static void in_socket_behind_240k(void) {
    int much = 1 << 20;
    make_sockets(SOCK_STREAM);
    check(setsockopt(channel[1], SOL_SOCKET, SO_SNDBUF, &much, sizeof much) == 0);
    write_zeros(240 << 10);
    below(write_pointer);
}
// Where a look at what waits ends before the pointer.
static void in_socket_behind_rights(void) {
    char byte = 0;
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } rights = {.header = {CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS}};
    memcpy(CMSG_DATA(&rights.header), &(int){1}, sizeof(int));
    struct iovec bytes = {&byte, 1};
    struct msghdr message = {.msg_iov = &bytes, .msg_iovlen = 1, .msg_control = &rights, .msg_controllen = sizeof rights};
    make_sockets(SOCK_STREAM);
    check(sendmsg(channel[1], &message, 0) == 1);
    below(write_pointer);
}
static void in_second_message(void) {
    make_sockets(SOCK_SEQPACKET);
    write_zeros(64);
    below(write_pointer);
}
// Where the program itself has set how far it has looked.
static void in_marked_socket(void) {
    int mark = 0;
    make_sockets(SOCK_STREAM);
    check(setsockopt(channel[0], SOL_SOCKET, SO_PEEK_OFF, &mark, sizeof mark) == 0);
    below(write_pointer);
}

// The value of a signal that waits, since it is blocked.
static void block(int signal) {
    sigset_t blocked;
    sigemptyset(&blocked);
    sigaddset(&blocked, signal);
    check(pthread_sigmask(SIG_BLOCK, &blocked, 0) == 0);
}
static union sigval value(void) { return (union sigval){.sival_ptr = lost ? 0 : HIDDEN}; }
static NOINLINE void queue(void) { check(sigqueue(getpid(), SIGUSR1, value()) == 0); }
static NOINLINE void queue_to_thread(void) { check(pthread_sigqueue(pthread_self(), SIGIO, value()) == 0); }
static void in_waiting_signal(void) {
    block(SIGUSR1);
    below(queue);
}
static void in_waiting_signal_of_thread(void) {
    block(SIGIO);
    below(queue_to_thread);
}
// One that the kernel itself has sent has none.
static void beside_broken_pipe(void) {
    int broken[2];
    block(SIGPIPE);
    check(pipe(broken) == 0 && close(broken[0]) == 0 && write(broken[1], "", 1) == -1);
    sigset_t waiting;
    check(sigpending(&waiting) == 0 && sigismember(&waiting, SIGPIPE));
}

static const struct {
    const char *name;
    void (*hold)(void);
} holders[] = {
    {"mixed_with_secret", mixed_with_secret},
    {"mixed_with_number", mixed_with_number},
    {"xor_list", in_xor_list},
    {"on_exit", in_on_exit},
    {"cxa_atexit", in_cxa_atexit},
    {"thread_timer", in_thread_timer},
    {"in_flight", in_flight},
    {"given_mapping", on_given_mapping},
    {"given_block", on_given_block},
    {"raw_stack", on_stack_of_raw_thread},
    {"raw_register", in_register_of_raw_thread},
    {"epoll_behind_many", in_epoll_behind_many},
    {"epoll_among_outputs", in_epoll_among_outputs},
    {"epoll_among_devices", in_epoll_among_devices},
    {"epoll_under_low_limit", in_epoll_under_low_limit},
    {"epoll_among_epolls", in_epoll_among_epolls},
    {"pipe_behind_100k", in_pipe_behind_100k},
    {"pipe_behind_900k", in_pipe_behind_900k},
    {"pipe_across_pieces", in_pipe_across_pieces},
    {"second_packet", in_second_packet},
    {"written_pipe", beside_written_pipe},
    {"socket_behind_240k", in_socket_behind_240k},
    {"socket_behind_rights", in_socket_behind_rights},
    {"second_message", in_second_message},
    {"marked_socket", in_marked_socket},
    {"waiting_signal", in_waiting_signal},
    {"waiting_signal_of_thread", in_waiting_signal_of_thread},
    {"broken_pipe", beside_broken_pipe},
};

int main(int count, char **words) {
    check(count == 3 && pipe(ready) == 0 && pipe(never) == 0);
    lost = is(words[2], "lose");
    for (size_t i = 0; i < sizeof holders / sizeof *holders; i++) {
        if (!is(words[1], holders[i].name)) continue;
        below(put_hidden);
        below(holders[i].hold);
        hidden = 0;
        scan();
        scan();
        _exit(0);
    }
    return 96;
}
