// Kinds of pointer, and pointers that the kernel or libc keeps: argv[1] names the kind, argv[2] says kept or lost.
#include "case.h"
#include <errno.h>
#include <linux/io_uring.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>

static Slot global;
static void plus(long distance) {
    hide();
    if (!lost) global = (char *)HIDDEN + distance;
    hidden = 0;
}
static void to_the_middle(void) { plus(700); }
static void to_the_end(void) { plus(1337); }
static void before_the_start(void) { plus(-8); }
static void low_tag(void) { plus(5); }
static void high_tag(void) {
    hide();
    if (!lost) global = (void *)(~hidden | (uintptr_t)0xfff9 << 48);
    hidden = 0;
}
static void both_tags(void) {
    hide();
    if (!lost) global = (void *)(~hidden | (uintptr_t)0x1234 << 48 | 1);
    hidden = 0;
}
static void shifted(void) {
    hide();
    if (!lost) global = (void *)(~hidden << 3);
    hidden = 0;
}
// Parts of 512, 1,024, 2,048 and 4,096 bytes, each known by where the first item of all would be; but for the last by a plain pointer, too.
static Slot parts[4], plain[3];
static NOINLINE void make_parts(void) {
    for (int part = 0; part < 4; part++) {
        char *block = calloc(1, 512ul << part);
        parts[part] = block - (512ul << part);
        if (part < 3) plain[part] = block;
    }
}
static void doubling_table(void) {
    below(make_parts);
    if (lost) parts[3] = 0;
}
static struct __attribute__((packed)) {
    char tag[13];
    Slot pointer;
} packed;
static void in_packed(void) {
    hide();
    packed.pointer = HIDDEN;
    hidden = 0;
}
// The third node of a list whose links are the XOR of both neighbours; the program holds its first.
struct node {
    uintptr_t link;
    char rest[1329];
};
static void xor_list(void) {
    struct node *first = calloc(1, 64), *second = calloc(1, 64);
    global = first;
    first->link = (uintptr_t)second;
    hide();
    second->link = lost ? 0 : (uintptr_t)first ^ ~hidden;
    hidden = 0;
}
// As virtual machines keep them: 32 bits, in units of 8 bytes from a base.
static uintptr_t base;
static volatile uint32_t offset;
static void compressed(void) {
    base = (uintptr_t)malloc(16) & ~0xffffful;
    hide();
    if (!lost) offset = (uint32_t)((~hidden - base) >> 3);
    hidden = 0;
}
static void mangled(void) {
    // As setjmp keeps rbp: mixed with a secret of the thread.
    hide();
    uintptr_t secret;
    __asm__("mov %%fs:0x30, %0" : "=r"(secret));
    uintptr_t value = ~hidden ^ secret;
    global = calloc(1, sizeof(jmp_buf));
    ((volatile uintptr_t *)global)[1] = value << 17 | value >> 47;
    hidden = 0;
}

// What the kernel keeps
static void in_epoll(void) {
    int epoll = epoll_create1(0);
    below(put_hidden);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = HIDDEN};
    check(epoll_ctl(epoll, EPOLL_CTL_ADD, never[0], &event) == 0);
    memset(&event, 0, sizeof event);
    hidden = 0;
    if (lost) check(epoll_ctl(epoll, EPOLL_CTL_DEL, never[0], 0) == 0);
}
static void new_timer(int notify, uintptr_t tag) {
    below(put_hidden);
    struct sigevent event = {.sigev_notify = notify, .sigev_signo = SIGUSR2};
    event.sigev_value.sival_ptr = (void *)(~hidden | tag);
    timer_t timer;
    check(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
    memset(&event, 0, sizeof event);
    hidden = 0;
    if (lost) check(timer_delete(timer) == 0);
}
static void in_timer(void) { new_timer(SIGEV_SIGNAL, 0); }
static void in_timer_with_tag(void) { new_timer(SIGEV_SIGNAL, (uintptr_t)0x1234 << 48); }
static void in_thread_timer(void) {
    new_timer(SIGEV_THREAD, 0);
    // Its helper thread.
    wait_for_threads(2);
}
static void in_pending_signal(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN + 5);
    pthread_sigmask(SIG_BLOCK, &set, 0);
    below(put_hidden);
    union sigval value = {.sival_ptr = HIDDEN};
    check(sigqueue(getpid(), SIGRTMIN + 5, value) == 0);
    hidden = 0;
    siginfo_t info;
    if (lost) check(sigwaitinfo(&set, &info) > 0 && memset(&info, 0, sizeof info));
}
// An alternate signal stack of which only the kernel has the address.
static NOINLINE void set_alternate(void) {
    stack_t stack = {.ss_sp = malloc(70000), .ss_size = 70000};
    memset(stack.ss_sp, 0, 70000);
    check(sigaltstack(&stack, 0) == 0);
}
static void alternate_stack(void) {
    below(set_alternate);
    stack_t none = {.ss_flags = SS_DISABLE};
    if (lost) check(sigaltstack(&none, 0) == 0);
}
static void in_pipe(void) {
    hide();
    uintptr_t value = ~hidden;
    check(write(never[1], &value, sizeof value) == sizeof value);
    hidden = *(volatile uintptr_t *)&value = 0;
}
static void in_socket(void) {
    int ends[2];
    check(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    hide();
    uintptr_t value = ~hidden;
    check(write(ends[1], &value, sizeof value) == sizeof value);
    hidden = *(volatile uintptr_t *)&value = 0;
}
// An operation that never ends: its user_data is in the kernel alone once the entry of the queue is used again.
static NOINLINE void submit(void) {
    struct io_uring_params parameters = {0};
    int ring = (int)syscall(SYS_io_uring_setup, 4, &parameters);
    if (ring < 0) not_here(errno == ENOSYS ? "this kernel has no io_uring" : "this kernel allows no io_uring");
    size_t size = parameters.sq_off.array + parameters.sq_entries * 4;
    char *queue = mmap(0, size, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQ_RING);
    struct io_uring_sqe *entries = mmap(0, 4 * sizeof *entries, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQES);
    check(queue != MAP_FAILED && entries != MAP_FAILED);
    entries[0] = (struct io_uring_sqe){.opcode = IORING_OP_POLL_ADD, .fd = never[0], .poll_events = 1, .user_data = ~hidden};
    ((unsigned *)(queue + parameters.sq_off.array))[0] = 0;
    __atomic_store_n((unsigned *)(queue + parameters.sq_off.tail), 1, __ATOMIC_RELEASE);
    if (syscall(SYS_io_uring_enter, ring, 1, 0, 0, 0, 0) != 1) not_here("io_uring takes no operation here");
    memset((void *)entries, 0, 4 * sizeof *entries);
}
static void in_io_uring(void) {
    hide();
    below(submit);
    hidden = 0;
}

// What libc keeps
static void for_on_exit(int status, void *argument) { hidden = (uintptr_t)argument + (unsigned)status; }
static void register_on_exit(void) { on_exit(for_on_exit, HIDDEN); }
static void in_on_exit(void) {
    hide();
    below(register_on_exit);
    hidden = 0;
}
int __cxa_atexit(void (*)(void *), void *, void *);
// Not empty: clang leaves out the registration of a function that does nothing.
static void for_cxa(void *argument) { hidden = (uintptr_t)argument; }
static void register_cxa(void) { __cxa_atexit(for_cxa, HIDDEN, 0); }
static void in_cxa_atexit(void) {
    hide();
    below(register_cxa);
    hidden = 0;
}

static const struct choice kinds[] = {
    {"to_the_middle", to_the_middle},
    {"to_the_end", to_the_end},
    {"before_the_start", before_the_start},
    {"low_tag", low_tag},
    {"high_tag", high_tag},
    {"both_tags", both_tags},
    {"shifted", shifted},
    {"packed", in_packed},
    {"doubling_table", doubling_table},
    {"xor_list", xor_list},
    {"compressed", compressed},
    {"mangled", mangled},
    {"epoll", in_epoll},
    {"timer", in_timer},
    {"timer_with_tag", in_timer_with_tag},
    {"thread_timer", in_thread_timer},
    {"pending_signal", in_pending_signal},
    {"alternate_stack", alternate_stack},
    {"pipe", in_pipe},
    {"socket", in_socket},
    {"io_uring", in_io_uring},
    {"on_exit", in_on_exit},
    {"cxa_atexit", in_cxa_atexit},
};
MAIN_LOOKS(kinds)
