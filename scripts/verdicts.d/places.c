// Places in which a block's only pointer may be: argv[1] names the place, argv[2] says kept or lost.
#include "case.h"
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <ucontext.h>

// Globals
static Slot data = (void *)8, bss;
static Slot relro[1024] __attribute__((section(".data.rel.ro"), aligned(4096))) = {(void *)8};
static void in_data(void) { keep_at(&data); }
static void in_bss(void) { keep_at(&bss); }
static void in_relro(void) {
    check(mprotect((void *)relro, sizeof relro, PROT_READ | PROT_WRITE) == 0);
    keep_at(&relro[5]);
    check(mprotect((void *)relro, sizeof relro, PROT_READ) == 0);
}

static void in_block(void) {
    bss = malloc(64);
    memset(bss, 0, 64);
    keep_at((Slot *)bss + 3);
}

// Libraries
Slot *linked_data(void), *linked_bss(void), *linked_tls(void);
static void in_linked_data(void) { keep_at(linked_data()); }
static void in_linked_bss(void) { keep_at(linked_bss()); }
static void in_linked_tls(void) { keep_at(linked_tls()); }
static Slot library;
static Slot *of_library(const char *function) {
    if (!library) library = dlopen(LIBRARY, RTLD_NOW);
    check(library != 0);
    Slot *(*get)(void) = (Slot * (*)(void)) dlsym(library, function);
    check(get != 0);
    return get();
}
static void in_loaded_data(void) { keep_at(of_library("loaded_data")); }
static void in_loaded_bss(void) { keep_at(of_library("loaded_bss")); }
static void in_loaded_tls(void) { keep_at(of_library("loaded_tls")); }
static void *loaded_tls_thread(void *_) {
    (void)_;
    in_loaded_tls();
    park();
    return 0;
}
static void in_loaded_tls_of_thread(void) { start(loaded_tls_thread); }
// The library goes with its place.
static void in_closed_library(void) {
    int closes = lost;
    lost = 0;
    in_loaded_data();
    if (closes) check(dlclose(library) == 0 && !dlopen(LIBRARY, RTLD_NOW | RTLD_NOLOAD));
}

// Registers. Who has them runs or waits, and another thread looks.
static void *looking_thread(void *_) {
    (void)_;
    wait_ready();
    look();
}
static void looked_at(void) {
    pthread_t thread;
    check(pthread_create(&thread, 0, looking_thread, 0) == 0);
}
#define SAY_READY "mov %[fd], %%edi\n mov $1, %%eax\n lea %[byte], %%rsi\n mov $1, %%edx\n syscall\n xor %%eax, %%eax\n"
#define READY_INPUTS [hidden] "m"(hidden), [fd] "m"(ready[1]), [byte] "m"(bss), [never] "m"(never[0])
#define READY_CLOBBERS "rbx", "rax", "rcx", "rdx", "rsi", "rdi", "r11", "memory"
static void *register_thread(void *_) {
    hide();
    scrub();
    __asm__ volatile("mov %[hidden], %%rbx\n not %%rbx\n" SAY_READY "1: pause\n jmp 1b" : : READY_INPUTS : READY_CLOBBERS);
    return _;
}
static void in_register_of_main(void) {
    looked_at();
    register_thread(0);
}
static void in_register(void) { start(register_thread); }
static void *tagged_register_thread(void *_) {
    hide();
    scrub();
    __asm__ volatile("mov %[hidden], %%rbx\n not %%rbx\n mov $0x1234, %%ecx\n shl $48, %%rcx\n or %%rcx, %%rbx\n" SAY_READY "1: pause\n jmp 1b"
                     : : READY_INPUTS : READY_CLOBBERS);
    return _;
}
static void in_tagged_register(void) { start(tagged_register_thread); }
static void *vector_thread(void *_) {
    hide();
    scrub();
    __asm__ volatile("mov %[hidden], %%rbx\n not %%rbx\n movq %%rbx, %%xmm9\n pslldq $8, %%xmm9\n xor %%ebx, %%ebx\n"
                     SAY_READY "1: pause\n jmp 1b" : : READY_INPUTS : READY_CLOBBERS, "xmm9");
    return _;
}
static void in_vector_register(void) { start(vector_thread); }
static void *argument_thread(void *_) {
    hide();
    scrub();
    __asm__ volatile("mov %[hidden], %%rbx\n not %%rbx\n" SAY_READY
                     "mov %[never], %%edi\n mov %%rbx, %%rsi\n xor %%ebx, %%ebx\n xor %%eax, %%eax\n mov $10, %%edx\n syscall"
                     : : READY_INPUTS : READY_CLOBBERS);
    return _;
}
static void in_argument(void) { start(argument_thread); }
static void *red_zone_thread(void *_) {
    hide();
    scrub();
    __asm__ volatile("mov %[hidden], %%rbx\n not %%rbx\n mov %%rbx, -120(%%rsp)\n xor %%ebx, %%ebx\n"
                     SAY_READY "1: pause\n jmp 1b" : : READY_INPUTS : READY_CLOBBERS);
    return _;
}
static void in_red_zone(void) { start(red_zone_thread); }

static void *wide_register_thread(void *_) {
    hide();
    scrub();
    __asm__ volatile("mov %[hidden], %%rbx\n not %%rbx\n vmovq %%rbx, %%xmm9\n vpermq $0x15, %%ymm9, %%ymm9\n xor %%ebx, %%ebx\n"
                     SAY_READY "1: pause\n jmp 1b" : : READY_INPUTS : READY_CLOBBERS, "xmm9");
    return _;
}
static void in_wide_register(void) {
    if (!__builtin_cpu_supports("avx2")) not_here("this processor has no AVX2");
    start(wide_register_thread);
}
// A handler interrupts the thread that has the register: it is in the signal's frame then.
static pthread_t interrupted;
static void parking_handler(int _) {
    (void)_;
    park();
}
static void interrupt_thread(void) { pthread_kill(interrupted, SIGUSR2); }
static void in_interrupted_register(void) {
    signal(SIGUSR2, parking_handler);
    check(pthread_create(&interrupted, 0, register_thread, 0) == 0);
    wait_ready();
    below(interrupt_thread);
    wait_ready();
}

// Stacks
static char **argument_words;
static void in_argv(void) { keep_at((Slot *)&argument_words[1]); }
static NOINLINE void on_main_stack(void) {
    Slot local = 0;
    keep_at(&local);
    look();
}
static void *stack_thread(void *_) {
    (void)_;
    Slot local = 0;
    keep_at(&local);
    park();
    return local;
}
static void on_thread_stack(void) { start(stack_thread); }
static void *blocking_thread(void *_) {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, 0);
    return stack_thread(_);
}
static void on_stack_of_blocking_thread(void) { start(blocking_thread); }
static NOINLINE void *map(size_t size) {
    void *at = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(at != MAP_FAILED);
    return at;
}
enum { STACK = 256 << 10 };
static Slot stack_block;
static void start_on(void *stack) {
    pthread_attr_t attributes;
    pthread_t thread;
    pthread_attr_init(&attributes);
    check(pthread_attr_setstack(&attributes, stack, STACK) == 0);
    check(pthread_create(&thread, &attributes, stack_thread, 0) == 0);
    wait_ready();
}
static void on_given_mapping(void) { start_on(map(STACK)); }
static void on_given_block(void) { start_on(stack_block = aligned_alloc(4096, STACK)); }
// A thread that libc knows nothing of: it may not call libc.
static int raw_thread(void *_) {
    (void)_;
    __asm__ volatile("mov %[hidden], %%rbx\n not %%rbx\n push %%rbx\n xor %%ebx, %%ebx\n" SAY_READY
                     "1: mov %[never], %%edi\n lea %[byte], %%rsi\n xor %%eax, %%eax\n mov $1, %%edx\n syscall\n jmp 1b"
                     : : READY_INPUTS : READY_CLOBBERS);
    return 0;
}
static int raw_register_thread(void *_) {
    (void)_;
    __asm__ volatile("mov %[hidden], %%rbx\n not %%rbx\n" SAY_READY
                     "1: mov %[never], %%edi\n lea %[byte], %%rsi\n xor %%eax, %%eax\n mov $1, %%edx\n syscall\n jmp 1b"
                     : : READY_INPUTS : READY_CLOBBERS);
    return 0;
}
static void start_raw(int (*routine)(void *)) {
    hide();
    int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;
    check(clone(routine, (char *)map(STACK) + STACK, flags, 0) > 0);
    wait_ready();
    hidden = 0;
}
static void on_stack_of_raw_thread(void) { start_raw(raw_thread); }
static void in_register_of_raw_thread(void) { start_raw(raw_register_thread); }

// Coroutines
static ucontext_t first, second;
// The block is made on main's own stack, so that the place alone is what is tried.
static void suspended(void) {
    Slot local = HIDDEN;
    hidden = 0;
    scrub();
    swapcontext(&second, &first);
    (void)*(char *)local;
}
static void running(void) {
    Slot local = HIDDEN;
    hidden = 0;
    look();
    (void)*(char *)local;
}
static void lose(void) { make(); }
static void losing(void) {
    below(lose);
    swapcontext(&second, &first);
}
static void coroutine(void (*routine)(void), void *stack) {
    getcontext(&second);
    second.uc_stack.ss_sp = stack;
    second.uc_stack.ss_size = STACK;
    second.uc_link = 0;
    makecontext(&second, routine, 0);
    swapcontext(&first, &second);
}
static void hidden_in_coroutine(void (*routine)(void), void *stack) {
    hide();
    coroutine(routine, stack);
}
static void suspended_on_block(void) { hidden_in_coroutine(suspended, stack_block = malloc(STACK)); }
static void suspended_on_mapping(void) { hidden_in_coroutine(suspended, map(STACK)); }
static void running_on_block(void) { hidden_in_coroutine(running, stack_block = malloc(STACK)); }
static void running_on_mapping(void) { hidden_in_coroutine(running, map(STACK)); }
static void made_by_coroutine(void) { coroutine(losing, map(STACK)); }
// Main's own stack, while it runs on another.
static NOINLINE void below_coroutine(void) {
    Slot local = 0;
    keep_at(&local);
    coroutine(look, map(STACK));
    (void)*(char *)local;
}

// Alternate signal stacks
static void handler_keeps(int _) {
    (void)_;
    running();
}
static void handler_looks(int _) {
    (void)_;
    look();
}
static void handle_on(void *memory, void (*handler)(int)) {
    stack_t stack = {.ss_sp = memory, .ss_size = STACK};
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_ONSTACK};
    check(sigaltstack(&stack, 0) == 0 && sigaction(SIGUSR1, &action, 0) == 0);
    raise(SIGUSR1);
}
static void on_alternate_block(void) {
    hide();
    handle_on(stack_block = malloc(STACK), handler_keeps);
}
static void on_alternate_mapping(void) {
    hide();
    handle_on(map(STACK), handler_keeps);
}
static NOINLINE void below_alternate_stack(void) {
    Slot local = 0;
    keep_at(&local);
    handle_on(map(STACK), handler_looks);
    (void)*(char *)local;
}
// Between a thread's creation and its start, and between its end and its join
static volatile pid_t ended;
static void *returning_thread(void *argument) {
    ended = (pid_t)syscall(SYS_gettid);
    return argument;
}
// A thread that the kernel holds back before it has come to its routine: it waits in a system call of libc's for the answer of a
// supervisor that never gives one.
static NOINLINE void create_held(void) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_set_robust_list, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof filter / sizeof *filter, .filter = filter};
    check(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    int supervisor = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
    if (supervisor < 0) not_here("cannot hold a thread back at its start here");
    pthread_t thread;
    check(pthread_create(&thread, 0, returning_thread, HIDDEN) == 0);
    struct pollfd held = {.fd = supervisor, .events = POLLIN};
    check(poll(&held, 1, 10000) == 1 && !ended);
}
static void in_flight(void) {
    hide();
    below(create_held);
    hidden = 0;
}
static pthread_t thread;
static NOINLINE void create_returning(void) { check(pthread_create(&thread, 0, returning_thread, HIDDEN) == 0); }
static void in_result(void) {
    hide();
    below(create_returning);
    hidden = 0;
    while (!ended || syscall(SYS_tgkill, getpid(), ended, 0) == 0) usleep(1000);
}

// Thread-local storage
static __thread Slot tls;
static void in_tls(void) { keep_at(&tls); }
static void *tls_thread(void *_) {
    (void)_;
    in_tls();
    park();
    return 0;
}
static void in_tls_of_thread(void) { start(tls_thread); }
static pthread_key_t keys[64];
static int which;
static NOINLINE void set_specific(void) {
    pthread_setspecific(keys[which], make());
    if (lost) pthread_setspecific(keys[which], 0);
}
static void specific(int key) {
    for (int i = 0; i < 64; i++) check(pthread_key_create(&keys[i], 0) == 0);
    which = key;
    below(set_specific);
}
static void in_specific(void) { specific(3); }
static void in_late_specific(void) { specific(60); }
static void *specific_thread(void *_) {
    (void)_;
    specific(3);
    park();
    return 0;
}
static void in_specific_of_thread(void) { start(specific_thread); }
static void *late_specific_thread(void *_) {
    (void)_;
    specific(60);
    park();
    return 0;
}
static void in_late_specific_of_thread(void) { start(late_specific_thread); }

// Mappings
static void in_anonymous(void) { keep_at((Slot *)map(8192) + 5); }
static Slot arena;
static void in_arena(void) {
    // As a program's own allocator: small objects one behind the other, of which a global knows the first.
    struct object {
        struct object *next;
        Slot held;
    } *objects = map(1 << 20);
    for (int i = 0; i < 99; i++) objects[i].next = &objects[i + 1];
    arena = objects;
    keep_at(&objects[99].held);
}
static void protected(int protection) {
    Slot *page = map(4096);
    keep_at(page + 5);
    check(mprotect((void *)page, 4096, protection) == 0);
}
static void in_read_only(void) { protected(PROT_READ); }
static void in_closed_page(void) { protected(PROT_NONE); }
static void advised(int advice) {
    Slot *page = map(4096);
    keep_at(page + 5);
    check(madvise((void *)page, 4096, advice) == 0);
}
static void in_page_not_forked(void) { advised(MADV_DONTFORK); }
static void in_page_wiped_on_fork(void) { advised(MADV_WIPEONFORK); }
static void in_huge_page(void) {
    size_t huge = 2 << 20;
    char *area = (char *)(((uintptr_t)map(2 * huge) + huge - 1) & ~(huge - 1));
    if (madvise(area, huge, MADV_HUGEPAGE) != 0) not_here("this kernel has no large pages");
    keep_at((Slot *)(area + 12344));
}
static Slot *of_file(int file, int flags) {
    check(file >= 0 && ftruncate(file, 8192) == 0);
    Slot *at = mmap(0, 8192, PROT_READ | PROT_WRITE, flags, file, 0);
    check(at != MAP_FAILED);
    close(file);
    return at + 700;
}
static int new_file(void) { return open("mapped", O_RDWR | O_CREAT | O_TRUNC, 0600); }
static void in_private_file(void) { keep_at(of_file(new_file(), MAP_PRIVATE)); }
static void in_shared_file(void) { keep_at(of_file(new_file(), MAP_SHARED)); }
static void in_memfd(void) { keep_at(of_file(memfd_create("m", 0), MAP_SHARED)); }
static void in_shared_anonymous(void) {
    keep_at((Slot *)mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0) + 700);
}
static void in_shm(void) {
    int id = shmget(IPC_PRIVATE, 8192, 0600);
    if (id < 0) not_here("this kernel has no System V memory");
    Slot *at = shmat(id, 0, 0);
    shmctl(id, IPC_RMID, 0);
    check(at != (void *)-1);
    keep_at(at + 5);
}
static void in_moved_mapping(void) {
    Slot *page = map(4096);
    keep_at(page + 5);
    check(mremap((void *)page, 4096, 1 << 20, MREMAP_MAYMOVE) != MAP_FAILED);
}
// As a JIT compiler leaves it: an immediate at an odd address in code.
static void in_code(void) {
    char *page = map(4096);
    hide();
    uintptr_t pointer = ~hidden;
    memcpy(page + 101, &pointer, sizeof pointer);
    hidden = *(volatile uintptr_t *)&pointer = 0;
    check(mprotect(page, 4096, PROT_READ | PROT_EXEC) == 0);
}
static void in_sbrk(void) {
    char *at = sbrk(8192);
    check(at != (void *)-1);
    keep_at((Slot *)(((uintptr_t)at + 64) & ~63ul));
}

static const struct choice places[] = {
    {"data", in_data},
    {"bss", in_bss},
    {"relro", in_relro},
    {"block", in_block},
    {"linked_data", in_linked_data},
    {"linked_bss", in_linked_bss},
    {"linked_tls", in_linked_tls},
    {"loaded_data", in_loaded_data},
    {"loaded_bss", in_loaded_bss},
    {"closed_library", in_closed_library},
    {"loaded_tls", in_loaded_tls},
    {"loaded_tls_of_thread", in_loaded_tls_of_thread},
    {"register_of_main", in_register_of_main},
    {"register", in_register},
    {"tagged_register", in_tagged_register},
    {"vector_register", in_vector_register},
    {"argument", in_argument},
    {"wide_register", in_wide_register},
    {"interrupted_register", in_interrupted_register},
    {"argv", in_argv},
    {"red_zone", in_red_zone},
    {"main_stack", on_main_stack},
    {"thread_stack", on_thread_stack},
    {"stack_of_blocking_thread", on_stack_of_blocking_thread},
    {"given_mapping", on_given_mapping},
    {"given_block", on_given_block},
    {"stack_of_raw_thread", on_stack_of_raw_thread},
    {"register_of_raw_thread", in_register_of_raw_thread},
    {"suspended_on_block", suspended_on_block},
    {"suspended_on_mapping", suspended_on_mapping},
    {"running_on_block", running_on_block},
    {"running_on_mapping", running_on_mapping},
    {"below_coroutine", below_coroutine},
    {"made_by_coroutine", made_by_coroutine},
    {"alternate_block", on_alternate_block},
    {"alternate_mapping", on_alternate_mapping},
    {"below_alternate_stack", below_alternate_stack},
    {"in_flight", in_flight},
    {"result", in_result},
    {"tls", in_tls},
    {"tls_of_thread", in_tls_of_thread},
    {"specific", in_specific},
    {"late_specific", in_late_specific},
    {"specific_of_thread", in_specific_of_thread},
    {"late_specific_of_thread", in_late_specific_of_thread},
    {"anonymous", in_anonymous},
    {"arena", in_arena},
    {"shared_anonymous", in_shared_anonymous},
    {"memfd", in_memfd},
    {"private_file", in_private_file},
    {"shared_file", in_shared_file},
    {"shm", in_shm},
    {"moved_mapping", in_moved_mapping},
    {"code", in_code},
    {"sbrk", in_sbrk},
    {"read_only", in_read_only},
    {"closed_page", in_closed_page},
    {"page_not_forked", in_page_not_forked},
    {"page_wiped_on_fork", in_page_wiped_on_fork},
    {"huge_page", in_huge_page},
};
int main(int count, char **words) {
    argument_words = words;
    run_case(count, words, places, sizeof places / sizeof *places);
    look();
}
