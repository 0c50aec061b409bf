// flags: -O2
// Allocates from stacks that are hard to unwind; loses one block of 1337 bytes from there.
#include "test.h"
#include <alloca.h>
#include <dlfcn.h>
#include <link.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <time.h>
#include <ucontext.h>

static void *volatile kept[64];
static volatile int calls;
static NOINLINE void allocate(int number) {
    // Once in a while a block that is lost. Everything else is kept for a while, and freed.
    if (number == 1000) memset(malloc(1337), 0, 1337);
    free(kept[number & 63]);
    kept[number & 63] = malloc(32 + (size_t)number % 100);
    __asm__ volatile("" ::: "memory");
}
static void free_all(void) {
    for (int i = 0; i < 64; i++) free(kept[i]);
}

static void handler(int _) {
    (void)_;
    allocate(++calls);
    __asm__ volatile("" ::: "memory");
}
static void fault_handler(int _, siginfo_t *info, void *context) {
    (void)_, (void)info;
    allocate(++calls);
    ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] += 2;
}
static NOINLINE void fault(void) { __asm__ volatile("xor %%eax, %%eax\n mov (%%rax), %%al" ::: "eax", "memory"); }

static ucontext_t scheduler, coroutines[8];
static size_t stack_size;
static void coroutine(int id) {
    for (int i = 0; i < 500; i++) {
        allocate(id * 500 + i);
        swapcontext(&coroutines[id], &scheduler);
    }
    swapcontext(&coroutines[id], &scheduler);
}
static void *run_coroutines(void *_) {
    (void)_;
    for (int i = 0; i < 8; i++) {
        getcontext(&coroutines[i]);
        // With a page that must not be touched below it.
        char *stack = mmap(0, stack_size + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        check(mprotect(stack, 4096, PROT_NONE) == 0);
        coroutines[i].uc_stack.ss_sp = stack + 4096;
        coroutines[i].uc_stack.ss_size = stack_size;
        coroutines[i].uc_link = &scheduler;
        makecontext(&coroutines[i], (void (*)(void))coroutine, 1, i);
    }
    for (int round = 0; round < 501; round++) {
        for (int i = 0; i < 8; i++) swapcontext(&scheduler, &coroutines[i]);
    }
    // What they have left there would keep the lost block.
    for (int i = 0; i < 8; i++) munmap((char *)coroutines[i].uc_stack.ss_sp - 4096, stack_size + 4096);
    memset(coroutines, 0, sizeof coroutines);
    return 0;
}

static void call_code(const unsigned char *code, size_t length) {
    unsigned char *page = mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(page != MAP_FAILED);
    memcpy(page, code, length);
    for (int i = 0; i < 2000; i++) ((void (*)(int, void (*)(int)))page)(i, allocate);
}
// push rbp; mov rbp, rsp; sub rsp, 32; call rsi; leave; ret
static const unsigned char with_frame[] = {0x55, 0x48, 0x89, 0xe5, 0x48, 0x83, 0xec, 0x20, 0xff, 0xd6, 0xc9, 0xc3};
// The same, but rbp is moved by 19: what it points to is no frame.
static const unsigned char with_garbage[] = {0x55, 0x48, 0x89, 0xe5, 0x48, 0x83, 0xc5, 0x13, 0x48, 0x83,
                                             0xec, 0x20, 0xff, 0xd6, 0x48, 0x83, 0xc4, 0x20, 0x5d, 0xc3};

static NOINLINE void with_alloca(int number) {
    volatile char *room = alloca((size_t)number % 700 + 1);
    room[0] = 1;
    allocate(number);
    room[0] = 2;
}
static NOINLINE void with_aligned_frame(int number) {
    volatile char room[128] __attribute__((aligned(64)));
    volatile char *more = alloca((size_t)number % 500 + 1);
    room[0] = more[0] = 1;
    allocate(number);
    room[1] = more[0];
}
static NOINLINE void recurse(int depth, int number) {
    if (depth == 0) return allocate(number);
    recurse(depth - 1, number);
    __asm__ volatile("" ::: "memory");
}
static jmp_buf back;
static NOINLINE void jump(int number) {
    allocate(number);
    longjmp(back, 1);
}

// Code without a table. The frame pointer is 8 and 16 bytes below the end of all addresses when malloc is called.
void *with_frame_pointer(size_t size, long frame_pointer);
// Two callers: one that has a table and switches to another stack, and one that has none.
void on_stack(void *top, void (*function)(int), int number);
void without_table(void (*function)(int, int), int depth, int number);
__asm__(".text\n"
        ".globl with_frame_pointer\n.type with_frame_pointer,@function\nwith_frame_pointer:\n"
        "push %rbp\n mov %rsi, %rbp\n call malloc@PLT\n pop %rbp\n ret\n.size with_frame_pointer, . - with_frame_pointer\n"
        ".globl on_stack\n.type on_stack,@function\non_stack:\n.cfi_startproc\n"
        "push %rbp\n.cfi_def_cfa_offset 16\n.cfi_offset %rbp,-16\n mov %rsp, %rbp\n.cfi_def_cfa_register %rbp\n"
        "mov %rdi, %rsp\n mov %edx, %edi\n call *%rsi\n leave\n.cfi_def_cfa %rsp,8\n ret\n.cfi_endproc\n"
        ".size on_stack, . - on_stack\n"
        ".globl without_table\n.type without_table,@function\nwithout_table:\n"
        "push %rbp\n mov %rsp, %rbp\n mov %rdi, %rax\n mov %esi, %edi\n mov %edx, %esi\n call *%rax\n pop %rbp\n ret\n"
        ".size without_table, . - without_table\n");
static char *other_stack;
static NOINLINE void then_on_other_stack(int depth, int number) {
    if (depth) then_on_other_stack(depth - 1, number);
    else on_stack(other_stack + (64 << 10), allocate, number);
    __asm__ volatile("" ::: "memory");
}

// Two libraries that come to lie at the same address in turn: their paths are the arguments.
static void in_turn(char **libraries) {
    void *last = 0;
    int same = 0;
    for (int round = 0; round < 100; round++) {
        void *library = dlopen(libraries[round & 1], RTLD_NOW);
        check(library != 0);
        void (*work)(void (*)(int), int) = (void (*)(void (*)(int), int))dlsym(library, "work");
        same += (void *)work == last;
        last = (void *)work;
        for (int i = 0; i < 20; i++) work(allocate, i);
        void (*lose)(void) = (void (*)(void))dlsym(library, round & 1 ? "lose_in_b" : "lose_in_a");
        lose();
        dlclose(library);
    }
    check(same > 0);
}

// A lock of the loader's is held where these allocate.
static int in_iteration(struct dl_phdr_info *info, size_t size, void *data) {
    (void)info, (void)size, (void)data;
    allocate(5);
    return 0;
}
static volatile int over;
static void *allocating_thread(void *_) {
    (void)_;
    while (!over) free(malloc(40));
    return 0;
}

static void *small_thread(void *_) {
    (void)_;
    for (int i = 0; i < 2000; i++) allocate(i);
    return 0;
}

int main(int count, char **words) {
    check(count >= 2);
    const char *what = words[1];
    pthread_t threads[3];
    if (is(what, "signal")) {
        signal(SIGUSR1, handler);
        for (int i = 0; i < 2000; i++) raise(SIGUSR1);
    } else if (is(what, "timer")) {
        signal(SIGALRM, handler);
        timer_t timer;
        struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM};
        timer_create(CLOCK_MONOTONIC, &event, &timer);
        struct itimerspec often = {{0, 100000}, {0, 100000}};
        timer_settime(timer, 0, &often, 0);
        volatile double x = 0;
        while (calls < 2000) x += 0.5;
        timer_delete(timer);
    } else if (is(what, "fault") || is(what, "fault_on_other_stack")) {
        struct sigaction action = {.sa_sigaction = fault_handler, .sa_flags = SA_SIGINFO};
        if (is(what, "fault_on_other_stack")) {
            stack_t stack = {.ss_size = 1 << 16};
            stack.ss_sp = mmap(0, stack.ss_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            sigaltstack(&stack, 0);
            action.sa_flags |= SA_ONSTACK;
        }
        sigaction(SIGSEGV, &action, 0);
        for (int i = 0; i < 2000; i++) fault();
    } else if (is(what, "coroutines")) {
        stack_size = (size_t)atol(words[2]);
        run_coroutines(0);
    } else if (is(what, "coroutines_of_thread")) {
        stack_size = (size_t)atol(words[2]);
        pthread_create(threads, 0, run_coroutines, 0);
        pthread_join(*threads, 0);
    } else if (is(what, "code")) {
        call_code(with_frame, sizeof with_frame);
    } else if (is(what, "code_with_garbage")) {
        call_code(with_garbage, sizeof with_garbage);
    } else if (is(what, "alloca")) {
        for (int i = 0; i < 3000; i++) {
            with_alloca(i);
            with_aligned_frame(i + 5000);
        }
    } else if (is(what, "high_frame_pointer")) {
        for (long at = -8; at >= -24; at -= 8) free(with_frame_pointer(100, at));
        allocate(1000);
    } else if (is(what, "another_stack_between")) {
        other_stack = mmap(0, 64 << 10, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        for (int i = 0; i < 8000; i++) without_table(then_on_other_stack, i % 40, i);
    } else if (is(what, "recursion")) {
        // The lost block's number is 1000.
        int lost_at = count > 2 ? atoi(words[2]) : 0;
        for (int i = 0; i < 3000; i++) recurse((i + lost_at) % 200, i);
    } else if (is(what, "longjmp")) {
        for (volatile int i = 0; i < 3000; i++) {
            if (!setjmp(back)) jump(i);
        }
    } else if (is(what, "libraries")) {
        in_turn(words + 2);
    } else if (is(what, "iteration")) {
        for (int i = 0; i < 3; i++) pthread_create(&threads[i], 0, allocating_thread, 0);
        for (int i = 0; i < 5000; i++) dl_iterate_phdr(in_iteration, 0);
        over = 1;
        for (int i = 0; i < 3; i++) pthread_join(threads[i], 0);
    } else if (is(what, "small_thread")) {
        pthread_attr_t attributes;
        pthread_attr_init(&attributes);
        check(pthread_attr_setstacksize(&attributes, (size_t)sysconf(_SC_THREAD_STACK_MIN)) == 0);
        pthread_create(threads, &attributes, small_thread, 0);
        pthread_join(*threads, 0);
    } else {
        return 96;
    }
    free_all();
    return 0;
}
