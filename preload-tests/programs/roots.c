// Keeps a block of 1337 bytes by one pointer, in the place that the first argument names, and calls exit.
#include "test.h"
#include <dlfcn.h>
#include <fcntl.h>
#include <malloc.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <time.h>
#include <ucontext.h>

typedef void *volatile Slot;

static NOINLINE void *make(void) {
    void *block = malloc(1337);
    memset(block, 0, 1337);
    return block;
}

static Slot *target;
static NOINLINE void put(void) { *target = make(); }
// Puts a new block's address there, and nowhere else.
static void keep_at(Slot *place) {
    target = place;
    below(put);
    target = 0;
}
// The same with all bits turned, so that no scan takes it for a pointer.
static uintptr_t hidden;
static NOINLINE void put_hidden(void) { hidden = ~(uintptr_t)make(); }

static int ready[2], never[2];
static NOINLINE void park(void) {
    check(write(ready[1], "", 1) == 1);
    char byte;
    check(read(never[0], &byte, 1) == 1);
}
static void start(void *(*routine)(void *)) {
    pthread_t thread;
    check(pthread_create(&thread, 0, routine, 0) == 0);
    char byte;
    check(read(ready[0], &byte, 1) == 1);
}
static void start_and_join(void *(*routine)(void *)) {
    pthread_t thread;
    check(pthread_create(&thread, 0, routine, 0) == 0);
    pthread_join(thread, 0);
}

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

// A library that dlopen loads: its path is the second argument.
static const char *library;
static void *library_function(const char *name) {
    static void *handle;
    if (!handle) handle = dlopen(library, RTLD_NOW);
    check(handle != 0);
    void *function = dlsym(handle, name);
    check(function != 0);
    return function;
}
static Slot *of_library(const char *function) { return ((Slot * (*)(void)) library_function(function))(); }
static void in_library_data(void) { keep_at(of_library("data")); }
static void in_library_bss(void) { keep_at(of_library("bss")); }
// Which makes all of its data read-only afterwards.
static void seal_library(void) { check(((int (*)(void))library_function("seal"))() == 0); }
static void in_sealed_library_data(void) {
    in_library_data();
    seal_library();
}
static void in_sealed_library_bss(void) {
    in_library_bss();
    seal_library();
}
static void forgotten_by_sealed_library(void) {
    in_library_data();
    *of_library("data") = 0;
    seal_library();
}
static void in_library_tls(void) { keep_at(of_library("tls")); }
static void forgotten_by_library_tls(void) {
    in_library_tls();
    *of_library("tls") = 0;
}
static void *library_tls_thread(void *_) {
    (void)_;
    in_library_tls();
    park();
    return 0;
}
static void in_library_tls_of_thread(void) { start(library_tls_thread); }
static void *library_tls_thread_that_ends(void *_) {
    in_library_tls();
    return _;
}
static void in_library_tls_of_ended_thread(void) { start_and_join(library_tls_thread_that_ends); }

// Stacks
static void *stack_thread(void *_) {
    (void)_;
    Slot local = 0;
    keep_at(&local);
    park();
    return local;
}
static void on_thread_stack(void) { start(stack_thread); }
static NOINLINE void on_popped_frame(void) {
    volatile char room[20 << 10];
    room[0] = room[1] = 0;
    Slot local = make();
    (void)local;
}
static void popped(void) { on_popped_frame(); }
static void *popped_thread(void *_) {
    (void)_;
    on_popped_frame();
    scrub_registers();
    park();
    return 0;
}
static void popped_of_thread(void) { start(popped_thread); }
static void *full_block_thread(void *_) {
    (void)_;
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, 0);
    return stack_thread(0);
}
static void on_stack_of_blocking_thread(void) { start(full_block_thread); }
static void *red_zone_thread(void *_) {
    (void)_;
    below(put_hidden);
    __asm__ volatile("mov %[hidden], %%rbx\n not %%rbx\n mov %%rbx, -120(%%rsp)\n xor %%ebx, %%ebx\n"
                     "mov %[fd], %%edi\n mov $1, %%eax\n lea %[byte], %%rsi\n mov $1, %%edx\n syscall\n"
                     "1: pause\n jmp 1b"
                     :
                     : [hidden] "m"(hidden), [fd] "m"(ready[1]), [byte] "m"(bss)
                     : "rbx", "rax", "rcx", "rdx", "rsi", "rdi", "r11", "memory");
    return 0;
}
static void in_red_zone(void) { start(red_zone_thread); }

// A thread on another stack than its own: a coroutine, an alternate signal stack.
static ucontext_t first, second;
static int forgets;
static void coroutine(void) {
    Slot local = 0;
    keep_at(&local);
    if (forgets) local = 0;
    swapcontext(&second, &first);
    (void)*(char *)local;
}
static void suspend_on(void *stack) {
    getcontext(&second);
    second.uc_stack.ss_sp = stack;
    second.uc_stack.ss_size = 256 << 10;
    second.uc_link = 0;
    makecontext(&second, coroutine, 0);
    swapcontext(&first, &second);
}
// With closed pages behind it: the kernel may join it to main's thread-local storage otherwise, which is another class of roots.
static NOINLINE void *map(size_t size) {
    enum { GUARD = 16 << 10 };
    char *at = mmap(0, size + GUARD, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(at != MAP_FAILED && mprotect(at + size, GUARD, PROT_NONE) == 0);
    return at;
}
static Slot stack_block;
static void coroutine_on_block(void) {
    stack_block = malloc(256 << 10);
    suspend_on(stack_block);
}
static void forgotten_by_coroutine_on_block(void) {
    forgets = 1;
    coroutine_on_block();
}
static void coroutine_on_mapping(void) { suspend_on(map(256 << 10)); }
// The program ends while main stands on a coroutine's stack that holds no pointer any more.
static void exit_here(void) {
    below(put_hidden);
    scrub();
    exit(0);
}
static void exit_on_part(void *stack, size_t size) {
    getcontext(&second);
    second.uc_stack.ss_sp = stack;
    second.uc_stack.ss_size = size;
    second.uc_link = 0;
    makecontext(&second, exit_here, 0);
    swapcontext(&first, &second);
}
static void exit_on(void *stack) { exit_on_part(stack, 256 << 10); }
static void lost_on_running_block(void) { exit_on(stack_block = malloc(256 << 10)); }
static void lost_on_running_mapping(void) { exit_on(map(256 << 10)); }
// The stack is a block of another thread's arena, behind which a block that was freed still has the pointer.
static void *arena_thread(void *_) {
    (void)_;
    stack_block = malloc(120 << 10);
    char *freed = malloc(2000);
    below(put_hidden);
    *(uintptr_t volatile *)(freed + 1000) = ~hidden;
    free(freed);
    scrub();
    park();
    return 0;
}
static void lost_behind_running_block(void) {
    start(arena_thread);
    exit_on_part(stack_block, 120 << 10);
}
static void handler(int _) {
    (void)_;
    park();
}
// An alternate signal stack whose address only the kernel keeps.
static NOINLINE void set_alternate(void) {
    void *block = make();
    hidden = ~(uintptr_t)block;
    stack_t stack = {.ss_sp = realloc(block, 64 << 10), .ss_size = 64 << 10};
    check(sigaltstack(&stack, 0) == 0);
}
static void as_alternate_stack(void) { below(set_alternate); }
static void as_former_alternate_stack(void) {
    below(set_alternate);
    stack_t none = {.ss_flags = SS_DISABLE};
    check(sigaltstack(&none, 0) == 0);
}
// What a handler that has returned has left on it.
static void handle(int _) {
    (void)_;
    put_hidden();
    Slot left = (Slot)~hidden;
    (void)left;
}
static void left_on_alternate_stack(int of_malloc) {
    stack_t stack = {.ss_sp = of_malloc ? malloc(64 << 10) : map(64 << 10), .ss_size = 64 << 10};
    struct sigaction action = {.sa_handler = handle, .sa_flags = SA_ONSTACK};
    check(sigaltstack(&stack, 0) == 0 && sigaction(SIGUSR1, &action, 0) == 0);
    raise(SIGUSR1);
}
static void left_on_alternate_block(void) { left_on_alternate_stack(1); }
static void left_on_alternate_mapping(void) { left_on_alternate_stack(0); }
static void *alternate_thread(void *_) {
    (void)_;
    stack_t stack = {.ss_sp = map(64 << 10), .ss_size = 64 << 10};
    sigaltstack(&stack, 0);
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_ONSTACK};
    sigaction(SIGUSR1, &action, 0);
    Slot local = 0;
    keep_at(&local);
    raise(SIGUSR1);
    return local;
}
static void below_alternate_stack(void) { start(alternate_thread); }

// Registers, of a thread that runs
static void *register_thread(void *_) {
    (void)_;
    below(put_hidden);
    __asm__ volatile("mov %[hidden], %%rbx\n not %%rbx\n"
                     "mov %[fd], %%edi\n mov $1, %%eax\n lea %[byte], %%rsi\n mov $1, %%edx\n syscall\n"
                     "1: pause\n jmp 1b"
                     :
                     : [hidden] "m"(hidden), [fd] "m"(ready[1]), [byte] "m"(bss)
                     : "rbx", "rax", "rcx", "rdx", "rsi", "rdi", "r11", "memory");
    return 0;
}
static void in_register(void) { start(register_thread); }
// As lock-free lists keep a count of changes above an address.
static void *tagged_register_thread(void *_) {
    (void)_;
    below(put_hidden);
    __asm__ volatile("mov %[hidden], %%rbx\n not %%rbx\n mov $0x1234, %%ecx\n shl $48, %%rcx\n or %%rcx, %%rbx\n"
                     "mov %[fd], %%edi\n mov $1, %%eax\n lea %[byte], %%rsi\n mov $1, %%edx\n syscall\n"
                     "1: pause\n jmp 1b"
                     :
                     : [hidden] "m"(hidden), [fd] "m"(ready[1]), [byte] "m"(bss)
                     : "rbx", "rax", "rcx", "rdx", "rsi", "rdi", "r11", "memory");
    return 0;
}
static void in_register_with_tag(void) { start(tagged_register_thread); }
static void *vector_thread(void *_) {
    (void)_;
    below(put_hidden);
    __asm__ volatile("mov %[hidden], %%rbx\n not %%rbx\n movq %%rbx, %%xmm9\n pslldq $8, %%xmm9\n xor %%ebx, %%ebx\n"
                     "mov %[fd], %%edi\n mov $1, %%eax\n lea %[byte], %%rsi\n mov $1, %%edx\n syscall\n"
                     "1: pause\n jmp 1b"
                     :
                     : [hidden] "m"(hidden), [fd] "m"(ready[1]), [byte] "m"(bss)
                     : "rbx", "rax", "rcx", "rdx", "rsi", "rdi", "r11", "xmm9", "memory");
    return 0;
}
// Of the thread that scans: a segment's base, which libc leaves to programs.
static NOINLINE void base_on_block(void) {
#if defined __x86_64__
    check(syscall(SYS_arch_prctl, 0x1001, make()) == 0);
#endif
}
static void in_segment_base(void) { below(base_on_block); }
static void *base_thread(void *_) {
    (void)_;
    below(base_on_block);
    scrub();
    park();
    return 0;
}
static void in_segment_base_of_thread(void) { start(base_thread); }
static void in_vector_register(void) { start(vector_thread); }
// A thread that waits in a system call of which the pointer is an argument.
static void *argument_thread(void *_) {
    (void)_;
    below(put_hidden);
    __asm__ volatile("mov %[hidden], %%rbx\n not %%rbx\n"
                     "mov %[fd], %%edi\n mov $1, %%eax\n lea %[byte], %%rsi\n mov $1, %%edx\n syscall\n"
                     "mov %[never], %%edi\n mov %%rbx, %%rsi\n xor %%ebx, %%ebx\n xor %%eax, %%eax\n mov $10, %%edx\n syscall"
                     :
                     : [hidden] "m"(hidden), [fd] "m"(ready[1]), [byte] "m"(bss), [never] "m"(never[0])
                     : "rbx", "rax", "rcx", "rdx", "rsi", "rdi", "r11", "memory");
    return 0;
}
static void in_argument(void) { start(argument_thread); }
// A thread that has had the pointer as its argument, forgets it, and waits.
static void *dropping_thread(void *_) {
    (void)_;
    park();
    return 0;
}
static void in_dropped_argument(void) {
    pthread_t thread;
    char byte;
    below(put_hidden);
    check(pthread_create(&thread, 0, dropping_thread, (void *)~hidden) == 0 && read(ready[0], &byte, 1) == 1);
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
static void *tls_thread_that_ends(void *_) {
    (void)_;
    in_tls();
    return 0;
}
static void in_tls_of_ended_thread(void) { start_and_join(tls_thread_that_ends); }
static void *stack_thread_that_ends(void *_) {
    (void)_;
    Slot local = make();
    (void)local;
    return 0;
}
static void on_stack_of_ended_thread(void) { start_and_join(stack_thread_that_ends); }
static pthread_key_t keys[64];
static int which;
static NOINLINE void set_specific(void) { pthread_setspecific(keys[which], make()); }
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

// Mappings
static void in_anonymous(void) { keep_at((Slot *)map(8192) + 5); }
// Every second page is a guard, as newer glibcs make those of their threads' stacks: in a mapping that can be read it cannot.
static void between_guards(size_t pages) {
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif
    char *start = map(pages * 4096);
    for (size_t page = 1; page < pages; page += 2)
        // (A kernel before 6.13 has none.)
        check(madvise(start + page * 4096, 4096, MADV_GUARD_INSTALL) == 0 || mprotect(start + page * 4096, 4096, PROT_NONE) == 0);
    keep_at((Slot *)(start + (pages - 1) * 4096));
}
static void in_guarded(void) { between_guards(3); }
static void in_guarded_large(void) { between_guards(257); }
static void in_read_only(void) {
    Slot *page = map(4096);
    keep_at(page + 5);
    check(mprotect((void *)page, 4096, PROT_READ) == 0);
}
static void in_closed_page(void) {
    Slot *page = map(4096);
    keep_at(page + 5);
    check(mprotect((void *)page, 4096, PROT_NONE) == 0);
}
// A page that this thread may not read for the moment. (A CPU without protection keys has a plain one.)
static void in_page_behind_key(void) {
    Slot *page = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int key = pkey_alloc(0, 0);
    if (key >= 0) check(pkey_mprotect(page, 4096, PROT_READ | PROT_WRITE, key) == 0);
    keep_at(page);
    if (key >= 0) check(pkey_set(key, PKEY_DISABLE_ACCESS) == 0);
}
static void in_page_not_forked(void) {
    Slot *page = map(4096);
    keep_at(page + 5);
    check(madvise((void *)page, 4096, MADV_DONTFORK) == 0);
}
static void in_page_wiped_on_fork(void) {
    Slot *page = map(4096);
    keep_at(page + 5);
    check(madvise((void *)page, 4096, MADV_WIPEONFORK) == 0);
}
static void in_page_wiped_by_number(void) {
    Slot *page = map(4096);
    keep_at(page + 5);
    check(syscall(SYS_madvise, page, 4096, MADV_WIPEONFORK) == 0);
}
static Slot *of_file(int file, int flags) {
    struct stat status;
    // (Of large pages there are only whole ones.)
    check(file >= 0 && fstat(file, &status) == 0);
    size_t size = status.st_blksize > 8192 ? status.st_blksize : 8192;
    check(ftruncate(file, size) == 0);
    Slot *at = mmap(0, size, PROT_READ | PROT_WRITE, flags, file, 0);
    check(at != MAP_FAILED);
    close(file);
    return at + 700;
}
static int new_file(void) { return open("mapped", O_RDWR | O_CREAT | O_TRUNC, 0600); }
static void in_private_file(void) { keep_at(of_file(new_file(), MAP_PRIVATE)); }
static void in_shared_file(void) { keep_at(of_file(new_file(), MAP_SHARED)); }
// The second argument says where.
static void in_shared_file_there(void) { keep_at(of_file(open(library, O_RDWR | O_CREAT, 0600), MAP_SHARED)); }
static void in_unlinked_shared_file_there(void) {
    in_shared_file_there();
    check(unlink(library) == 0);
}
static void forgotten_by_shared_file_there(void) {
    Slot *at = of_file(open(library, O_RDWR | O_CREAT, 0600), MAP_SHARED);
    keep_at(at);
    *at = 0;
}
static void in_private_file_made_read_only(void) {
    Slot *at = of_file(new_file(), MAP_PRIVATE);
    keep_at(at);
    check(mprotect((void *)((uintptr_t)at & ~(uintptr_t)4095), 4096, PROT_READ) == 0);
}
static void in_memfd(void) { keep_at(of_file(memfd_create("m", 0), MAP_SHARED)); }
static void in_shared_anonymous(void) {
    keep_at((Slot *)mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0) + 700);
}
// The same as `keep_at`, anywhere.
static void write_at(char *place) {
    below(put_hidden);
    uintptr_t pointer = ~hidden;
    memcpy(place, &pointer, sizeof pointer);
    *(volatile uintptr_t *)&pointer = 0;
    scrub();
}
static char *closed_by(int protection, int flags) {
    char *page = mmap(0, 4096, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);
    check(page != MAP_FAILED);
    keep_at((Slot *)page + 9);
    check(mprotect(page, 4096, protection) == 0);
    return page;
}
static void in_page_to_be_written(void) { closed_by(PROT_WRITE, MAP_PRIVATE); }
static void in_page_to_be_run(void) { closed_by(PROT_EXEC, MAP_PRIVATE); }
static void in_closed_shared_page(void) { closed_by(PROT_NONE, MAP_SHARED); }
static void in_shared_page_to_be_written(void) { closed_by(PROT_WRITE, MAP_SHARED); }
// Through another mapping, which is gone.
static void in_private_memfd(int protection, size_t place) {
    enum { LARGE = 1 << 20 };
    int file = memfd_create("m", 0);
    check(file >= 0 && ftruncate(file, LARGE) == 0);
    char *at = mmap(0, LARGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    check(at != MAP_FAILED);
    write_at(at + place);
    check(munmap(at, LARGE) == 0);
    check(mmap(0, LARGE, protection, MAP_PRIVATE, file, 0) != MAP_FAILED);
    close(file);
}
static void in_memfd_to_be_changed(void) { in_private_memfd(PROT_READ | PROT_WRITE, 80); }
static void in_memfd_to_be_run(void) { in_private_memfd(PROT_READ | PROT_EXEC, 101); }
// The program changes its own code, as libraries do that divert calls.
static NOINLINE void diverted(void) { __asm__ volatile(".space 8192, 0x90"); }
static void in_patched_code(void) {
    char *page = (char *)(((uintptr_t)diverted + 4096) & ~(uintptr_t)4095);
    check(mprotect(page, 4096, PROT_READ | PROT_WRITE) == 0);
    write_at(page + 13);
    check(mprotect(page, 4096, PROT_READ | PROT_EXEC) == 0);
}
// libc has the place where a part of the block begins.
static NOINLINE void buffer_errors(void) { check(setvbuf(stderr, (char *)make() + 64, _IOFBF, 1024) == 0); }
static void in_libc(void) { below(buffer_errors); }
static void forgotten_by_libc(void) {
    in_libc();
    check(setvbuf(stderr, 0, _IONBF, 0) == 0);
}
// Of two large pages one is there, and no scan makes the other.
static void in_shared_large_pages(void) {
    struct stat before, after;
    int file = memfd_create("m", MFD_HUGETLB);
    check(file >= 0 && fstat(file, &before) == 0);
    size_t page = before.st_blksize;
    check(ftruncate(file, 2 * page) == 0);
    char *at = mmap(0, 2 * page, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    check(at != MAP_FAILED);
    keep_at((Slot *)(at + page + 4096));
    check(fstat(file, &before) == 0 && before.st_blocks == page / 512);
    scan();
    check(fstat(file, &after) == 0 && after.st_blocks == before.st_blocks);
}
static void in_shm(void) {
    int id = shmget(IPC_PRIVATE, 8192, 0600);
    Slot *at = shmat(id, 0, 0);
    shmctl(id, IPC_RMID, 0);
    check(at != (void *)-1);
    keep_at(at + 5);
}
static void in_code(void) {
    // As a JIT compiler leaves it: an immediate at an odd address.
    char *page = mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(page != MAP_FAILED);
    write_at(page + 101);
    check(mprotect(page, 4096, PROT_READ | PROT_EXEC) == 0);
}
static void in_sbrk(void) {
    char *at = sbrk(8192);
    check(at != (void *)-1);
    keep_at((Slot *)(((uintptr_t)at + 64) & ~63ul));
}
static Slot *by_brk(void) {
    char *at = sbrk(0);
    check(brk(at + 8192) == 0);
    return (Slot *)(((uintptr_t)at + 64) & ~63ul);
}
static void in_brk(void) { keep_at(by_brk()); }
static void forgotten_in_brk(void) {
    Slot *place = by_brk();
    keep_at(place);
    *place = 0;
}
// Asked for what is too low the kernel says yes, and moves nothing.
static void in_brk_asked_in_vain(void) {
    keep_at(by_brk());
    check(brk(0) == 0 && brk((void *)4096) == 0);
}
// Beside memory that was got by so many steps before.
static void in_sbrk_by_steps(void) {
    for (int i = 0; i < 600; i++) check(sbrk(4096) != (void *)-1);
    in_sbrk();
}
static void in_sbrk_given_back(void) {
    for (int i = 0; i < 600; i++) check(sbrk(8192) != (void *)-1 && sbrk(-8192) != (void *)-1);
    in_sbrk();
}
// Between blocks: as many pieces as nobody keeps a list of.
static void in_sbrk_of_many(void) {
    static void *volatile between[300];
    mallopt(M_MMAP_THRESHOLD, 1 << 24);
    for (int i = 0; i < 300; i++) {
        check(sbrk(4096) != (void *)-1);
        between[i] = malloc(200000);
    }
    in_sbrk();
}
// The kernel calls these parts of the heap, too.
static Slot *by_brk_of_kernel(void) {
    char *at = sbrk(0);
    check(syscall(SYS_brk, at + 8192) == (long)(at + 8192));
    return (Slot *)(((uintptr_t)at + 64) & ~63ul);
}
static Slot *behind_heap(void) {
    uintptr_t end = ((uintptr_t)sbrk(0) + 4095) & ~4095ul;
    void *at = mmap((void *)end, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    check(at == (void *)end);
    return at;
}
static void in_brk_of_kernel(void) {
    free(malloc(1));
    keep_at(by_brk_of_kernel());
}
static void in_mapping_behind_heap(void) {
    free(malloc(1));
    keep_at(behind_heap());
}
static void forgotten_behind_heap(void) {
    free(malloc(1));
    Slot *place = behind_heap();
    keep_at(place);
    *place = 0;
}

// What the kernel keeps
static void in_epoll_with(uintptr_t tag) {
    int epoll = epoll_create1(0);
    below(put_hidden);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = (void *)(~hidden | tag)};
    check(epoll_ctl(epoll, EPOLL_CTL_ADD, ready[0], &event) == 0);
    memset(&event, 0, sizeof event);
    scrub();
}
static void in_epoll(void) { in_epoll_with(0); }
static void in_epoll_with_tag(void) { in_epoll_with((uintptr_t)0x1234 << 48); }
static void in_timer_with(uintptr_t tag) {
    below(put_hidden);
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR2};
    event.sigev_value.sival_ptr = (void *)(~hidden | tag);
    timer_t timer;
    check(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
    memset(&event, 0, sizeof event);
    scrub();
}
static void in_timer(void) { in_timer_with(0); }
static void in_timer_with_tag(void) { in_timer_with((uintptr_t)0x1234 << 48); }

#define SENT (SIGRTMIN + 7)
static sigset_t blocked;
static NOINLINE void queue(pthread_t to) {
    union sigval value = {.sival_ptr = (void *)~hidden};
    check((to ? pthread_sigqueue(to, SENT, value) : sigqueue(getpid(), SENT, value)) == 0);
}
static void block(void) {
    sigemptyset(&blocked);
    sigaddset(&blocked, SENT);
    sigaddset(&blocked, SIGRTMIN + 6);
    check(pthread_sigmask(SIG_BLOCK, &blocked, 0) == 0);
}
static void in_waiting_signal(void) {
    block();
    // Others wait, too.
    for (int i = 0; i < 20; i++) check(sigqueue(getpid(), SIGRTMIN + 6, (union sigval){.sival_int = i}) == 0);
    below(put_hidden);
    queue(0);
    scrub();
}
static void *blocking_thread(void *_) {
    char byte;
    block();
    check(write(ready[1], "", 1) == 1);
    check(read(never[0], &byte, 1) >= 0);
    return _;
}
static void in_waiting_signal_of_thread(void) {
    pthread_t thread;
    char byte;
    block();
    check(pthread_create(&thread, 0, blocking_thread, 0) == 0 && read(ready[0], &byte, 1) == 1);
    below(put_hidden);
    queue(thread);
    scrub();
}
// In the kernel, where nothing stops it: its value is not to be had.
static void *sleeping_thread(void *_) {
    block();
    queue(pthread_self());
    scrub();
    pid_t child = vfork();
    if (child == 0) {
        char byte = 0;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        check(write(ready[1], &byte, 1) == 1);
        for (;;) pause();
    }
    return _;
}
static void in_waiting_signal_of_sleeper(void) {
    pthread_t thread;
    char byte;
    below(put_hidden);
    check(pthread_create(&thread, 0, sleeping_thread, 0) == 0 && read(ready[0], &byte, 1) == 1);
}
// Whoever calls ptrace ends.
static void in_waiting_signal_under_filter(void) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ptrace, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {4, code};
    check(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0);
    in_waiting_signal();
}
static void taken_signal(void) {
    siginfo_t info;
    block();
    below(put_hidden);
    queue(0);
    check(sigwaitinfo(&blocked, &info) == SENT);
    memset(&info, 0, sizeof info);
    scrub();
}

static void write_to(int end, int odd) {
    below(put_hidden);
    uintptr_t pointer = ~hidden;
    check(odd == 0 || write(end, "odd", 3) == 3);
    check(write(end, &pointer, sizeof pointer) == sizeof pointer);
    *(volatile uintptr_t *)&pointer = 0;
    scrub();
}
static void in_pipe(void) { write_to(never[1], 0); }
static void in_pipe_behind_odd_bytes(void) { write_to(never[1], 1); }
static void in_named_pipe(void) {
    check(mkfifo("named", 0600) == 0);
    write_to(open("named", O_RDWR), 1);
}
static void in_socket_of(int kind, int odd) {
    int ends[2];
    check(socketpair(AF_UNIX, kind, 0, ends) == 0);
    write_to(ends[1], odd);
}
static void in_socket(void) { in_socket_of(SOCK_STREAM, 1); }
static void in_datagram(void) { in_socket_of(SOCK_DGRAM, 0); }
static void in_packet(void) { in_socket_of(SOCK_SEQPACKET, 0); }
static void read_from_pipe(void) {
    uintptr_t pointer;
    write_to(never[1], 0);
    check(read(never[0], &pointer, sizeof pointer) == sizeof pointer);
    *(volatile uintptr_t *)&pointer = 0;
    scrub();
}

// By way of other blocks, and in other forms
static void in_block(void) {
    bss = malloc(64);
    keep_at((Slot *)bss + 3);
}
static void forgotten_by_block(void) {
    in_block();
    ((Slot *)bss)[3] = 0;
}
static void in_freed_block(void) {
    Slot *block = malloc(2000);
    keep_at(block + 100);
    free((void *)block);
    block = 0;
}
static void to_the_middle(void) {
    keep_at(&bss);
    bss = (char *)bss + 700;
}
static void to_the_end(void) {
    keep_at(&bss);
    bss = (char *)bss + 1337;
}
static void with_tag(void) {
    keep_at(&bss);
    bss = (char *)bss + 5;
}
static void mangled(void) {
    // As setjmp keeps rbp: mixed with a secret of the thread.
    below(put_hidden);
    uintptr_t secret;
    __asm__("mov %%fs:0x30, %0" : "=r"(secret));
    uintptr_t value = ~hidden ^ secret;
    bss = malloc(sizeof(jmp_buf));
    ((volatile uintptr_t *)bss)[1] = value << 17 | value >> 47;
    scrub();
}

// As engines keep a type in the upper bits of a value.
static void with_high_tag(void) {
    below(put_hidden);
    bss = (void *)(~hidden | (uintptr_t)0xfff9 << 48);
    scrub();
}
// As lock-free lists keep a count of changes above an address, and a mark below.
static void with_tags_at_both_ends(void) {
    below(put_hidden);
    bss = (void *)(~hidden | (uintptr_t)0x1234 << 48 | 1);
    scrub();
}
// As virtual machines keep an address as an integer.
static void shifted(int bits, uintptr_t tag) {
    below(put_hidden);
    bss = (void *)(~hidden << bits | tag);
    scrub();
}
static void shifted_by_1(void) { shifted(1, 1); }
static void shifted_by_2(void) { shifted(2, 2); }
static void shifted_by_3(void) { shifted(3, 0); }
// Arrays that do not count from zero, known by where their item 0 would be: of 8 bytes, and of 4 bytes, from one on.
static void counted_from(long bytes) {
    below(put_hidden);
    bss = (void *)(~hidden - bytes);
    scrub();
}
static void counted_from_one(void) { counted_from(8); }
static void ints_from_one(void) { counted_from(4); }
// Where one item before the array is the end of another block, the pointer is that block's.
static void *volatile before_it;
static NOINLINE void put_hidden_behind_another(void) {
    before_it = malloc(5000);
    put_hidden();
}
static void end_of_another(void) {
    malloc_trim(0);
    below(put_hidden_behind_another);
    check((uintptr_t)before_it + 5000 + 8 == ~hidden);
    bss = (void *)(~hidden - 8);
    before_it = 0;
    scrub();
}
// As in a packed structure.
static char packed[64];
static void in_packed(void) {
    below(put_hidden);
    uintptr_t value = ~hidden;
    memcpy(packed + 13, &value, 8);
    scrub();
}

// Behind the 10 bytes that were asked for, in the 24 that there are.
static void in_slack(void) {
    bss = malloc(10);
    keep_at((Slot *)bss + 2);
}
static void in_slack_that_is_asked_for(void) {
    bss = malloc(10);
    check(malloc_usable_size(bss) == 24);
    keep_at((Slot *)bss + 2);
}

static const struct {
    const char *name;
    void (*keep)(void);
} places[] = {
    {"data", in_data},
    {"bss", in_bss},
    {"relro", in_relro},
    {"library_data", in_library_data},
    {"library_bss", in_library_bss},
    {"sealed_library_data", in_sealed_library_data},
    {"sealed_library_bss", in_sealed_library_bss},
    {"forgotten_by_sealed_library", forgotten_by_sealed_library},
    {"library_tls", in_library_tls},
    {"forgotten_by_library_tls", forgotten_by_library_tls},
    {"library_tls_of_thread", in_library_tls_of_thread},
    {"thread_stack", on_thread_stack},
    {"popped_frame", popped},
    {"popped_frame_of_thread", popped_of_thread},
    {"stack_of_blocking_thread", on_stack_of_blocking_thread},
    {"red_zone", in_red_zone},
    {"coroutine_on_block", coroutine_on_block},
    {"forgotten_by_coroutine_on_block", forgotten_by_coroutine_on_block},
    {"coroutine_on_mapping", coroutine_on_mapping},
    {"lost_on_running_block", lost_on_running_block},
    {"lost_on_running_mapping", lost_on_running_mapping},
    {"lost_behind_running_block", lost_behind_running_block},
    {"alternate_stack", as_alternate_stack},
    {"former_alternate_stack", as_former_alternate_stack},
    {"left_on_alternate_block", left_on_alternate_block},
    {"left_on_alternate_mapping", left_on_alternate_mapping},
    {"below_alternate_stack", below_alternate_stack},
    {"register", in_register},
    {"segment_base", in_segment_base},
    {"segment_base_of_thread", in_segment_base_of_thread},
    {"vector_register", in_vector_register},
    {"argument", in_argument},
    {"dropped_argument", in_dropped_argument},
    {"tls", in_tls},
    {"tls_of_thread", in_tls_of_thread},
    {"tls_of_ended_thread", in_tls_of_ended_thread},
    {"library_tls_of_ended_thread", in_library_tls_of_ended_thread},
    {"stack_of_ended_thread", on_stack_of_ended_thread},
    {"specific", in_specific},
    {"late_specific", in_late_specific},
    {"specific_of_thread", in_specific_of_thread},
    {"anonymous", in_anonymous},
    {"guarded", in_guarded},
    {"guarded_large", in_guarded_large},
    {"read_only", in_read_only},
    {"closed_page", in_closed_page},
    {"page_behind_key", in_page_behind_key},
    {"page_not_forked", in_page_not_forked},
    {"page_wiped_on_fork", in_page_wiped_on_fork},
    {"page_wiped_by_number", in_page_wiped_by_number},
    {"private_file", in_private_file},
    {"private_file_made_read_only", in_private_file_made_read_only},
    {"shared_file", in_shared_file},
    {"shared_file_there", in_shared_file_there},
    {"unlinked_shared_file_there", in_unlinked_shared_file_there},
    {"forgotten_by_shared_file_there", forgotten_by_shared_file_there},
    {"memfd", in_memfd},
    {"shared_large_pages", in_shared_large_pages},
    {"shared_anonymous", in_shared_anonymous},
    {"shm", in_shm},
    {"page_to_be_written", in_page_to_be_written},
    {"page_to_be_run", in_page_to_be_run},
    {"closed_shared_page", in_closed_shared_page},
    {"shared_page_to_be_written", in_shared_page_to_be_written},
    {"memfd_to_be_changed", in_memfd_to_be_changed},
    {"memfd_to_be_run", in_memfd_to_be_run},
    {"patched_code", in_patched_code},
    {"libc", in_libc},
    {"forgotten_by_libc", forgotten_by_libc},
    {"code", in_code},
    {"sbrk", in_sbrk},
    {"brk", in_brk},
    {"forgotten_in_brk", forgotten_in_brk},
    {"brk_asked_in_vain", in_brk_asked_in_vain},
    {"sbrk_by_steps", in_sbrk_by_steps},
    {"sbrk_given_back", in_sbrk_given_back},
    {"sbrk_of_many", in_sbrk_of_many},
    {"brk_of_kernel", in_brk_of_kernel},
    {"mapping_behind_heap", in_mapping_behind_heap},
    {"forgotten_behind_heap", forgotten_behind_heap},
    {"epoll", in_epoll},
    {"timer", in_timer},
    {"pipe", in_pipe},
    {"pipe_behind_odd_bytes", in_pipe_behind_odd_bytes},
    {"named_pipe", in_named_pipe},
    {"socket", in_socket},
    {"datagram", in_datagram},
    {"packet", in_packet},
    {"waiting_signal", in_waiting_signal},
    {"waiting_signal_of_thread", in_waiting_signal_of_thread},
    {"waiting_signal_of_sleeper", in_waiting_signal_of_sleeper},
    {"waiting_signal_under_filter", in_waiting_signal_under_filter},
    {"taken_signal", taken_signal},
    {"read_from_pipe", read_from_pipe},
    {"block", in_block},
    {"forgotten_by_block", forgotten_by_block},
    {"freed_block", in_freed_block},
    {"to_the_middle", to_the_middle},
    {"to_the_end", to_the_end},
    {"with_tag", with_tag},
    {"mangled", mangled},
    {"in_slack", in_slack},
    {"in_slack_that_is_asked_for", in_slack_that_is_asked_for},
    {"with_high_tag", with_high_tag},
    {"with_tags_at_both_ends", with_tags_at_both_ends},
    {"register_with_tag", in_register_with_tag},
    {"timer_with_tag", in_timer_with_tag},
    {"epoll_with_tag", in_epoll_with_tag},
    {"shifted_by_1", shifted_by_1},
    {"shifted_by_2", shifted_by_2},
    {"shifted_by_3", shifted_by_3},
    {"counted_from_one", counted_from_one},
    {"ints_from_one", ints_from_one},
    {"end_of_another", end_of_another},
    {"in_packed", in_packed},
};

// With a fourth argument another thread waits meanwhile, so that there is somebody to stop, and a copy to be made.
static int others_never[2];
static void *other_thread(void *_) {
    // What main waits for is not this thread's.
    block();
    scrub();
    char byte;
    check(write(ready[1], "", 1) == 1 && read(others_never[0], &byte, 1) == 1);
    return _;
}

int main(int count, char **words) {
    check(count >= 2 && pipe(ready) == 0 && pipe(never) == 0);
    if (count > 2) library = words[2];
    int scans = count > 3 ? atoi(words[3]) : 0;
    if (count > 4) {
        check(pipe(others_never) == 0);
        start(other_thread);
    }
    if (is(words[1], "stack")) {
        Slot local = 0;
        keep_at(&local);
        for (; scans > 0; scans--) scan();
        exit(0);
    }
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        if (is(words[1], places[i].name)) {
            places[i].keep();
            scrub();
            for (; scans > 0; scans--) scan();
            exit(0);
        }
    }
    say("no such place");
    return 96;
}
