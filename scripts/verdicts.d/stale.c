// Stale pointers, which must not keep a block: argv[1] names where one is left. The block is always lost.
#include "case.h"
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <dlfcn.h>

static Slot global, other;
static NOINLINE void *map(size_t size) {
    void *at = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(at != MAP_FAILED);
    return at;
}
enum { STACK = 256 << 10 };

// Blocks
static NOINLINE void free_holder(void) {
    Slot *block = malloc(2000);
    memset((void *)block, 0, 2000);
    block[100] = make();
    other = malloc(16);
    free((void *)block);
}
static void in_freed_block(void) { below(free_holder); }
static NOINLINE void free_known_holder(void) {
    Slot *block = malloc(2000);
    memset((void *)block, 0, 2000);
    block[100] = make();
    other = malloc(16);
    global = block;
    free((void *)block);
}
static void in_freed_block_with_pointer(void) { below(free_known_holder); }
static NOINLINE void recycle(void) {
    Slot *block = malloc(3000);
    memset((void *)block, 0, 3000);
    block[100] = make();
    other = malloc(16);
    free((void *)block);
    global = malloc(3000);
}
static void in_recycled_block(void) { below(recycle); }
static NOINLINE void shrink(void) {
    Slot *block = malloc(3000);
    memset((void *)block, 0, 3000);
    block[300] = make();
    other = malloc(16);
    global = realloc((void *)block, 40);
}
static void behind_shrunk_block(void) { below(shrink); }

// Stacks
static NOINLINE void use(char *room) { __asm__ volatile("" : : "r"(room) : "memory"); }
static NOINLINE void leave_made(void) {
    Slot local = make();
    (void)local;
}
// Far enough down that the tool's own frames do not reach it.
static NOINLINE void leave_on_stack(void) {
    char room[64 << 10];
    use(room);
    leave_made();
    use(room);
}
static void popped_frame(void) {
    leave_on_stack();
    scrub_registers();
    look_as_it_is();
}
static void *popping_thread(void *_) {
    (void)_;
    leave_on_stack();
    scrub_registers();
    park();
    return 0;
}
static void popped_frame_of_thread(void) { start(popping_thread); }
static ucontext_t first, second;
static void coroutine(void (*routine)(void), void *stack) {
    getcontext(&second);
    second.uc_stack.ss_sp = stack;
    second.uc_stack.ss_size = STACK;
    second.uc_link = &first;
    makecontext(&second, routine, 0);
    swapcontext(&first, &second);
}
static NOINLINE void leave_pointer(void) {
    Slot local = HIDDEN;
    (void)local;
    hidden = 0;
}
static NOINLINE void leave_hidden(void) {
    char room[64 << 10];
    use(room);
    leave_pointer();
    use(room);
}
// The block is made on main's stack; the stale copy alone is the coroutine's.
static void pop_and_look(void) {
    leave_hidden();
    scrub_registers();
    look_as_it_is();
}
static void popped_frame_on_block(void) {
    below(put_hidden);
    coroutine(pop_and_look, global = malloc(STACK));
}
static void popped_frame_on_mapping(void) {
    below(put_hidden);
    coroutine(pop_and_look, global = map(STACK));
}
static void on_stack_of_ended_coroutine(void) {
    below(put_hidden);
    coroutine(leave_hidden, global = malloc(STACK));
}
static void handler(int _) {
    (void)_;
    leave_hidden();
}
static void handle_on(void *memory) {
    below(put_hidden);
    stack_t stack = {.ss_sp = memory, .ss_size = STACK};
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_ONSTACK};
    check(sigaltstack(&stack, 0) == 0 && sigaction(SIGUSR1, &action, 0) == 0);
    raise(SIGUSR1);
}
static void on_alternate_block(void) { handle_on(global = malloc(STACK)); }
static void on_alternate_mapping(void) { handle_on(map(STACK)); }

// Threads that have ended
static volatile pid_t ended;
static void *on_stack(void *_) {
    leave_on_stack();
    return _;
}
static void on_ended_stack(void) { start_and_join(on_stack); }
static void *on_stack_detached(void *_) {
    pthread_detach(pthread_self());
    leave_on_stack();
    ended = (pid_t)syscall(SYS_gettid);
    return _;
}
static void on_detached_stack(void) {
    pthread_t thread;
    check(pthread_create(&thread, 0, on_stack_detached, 0) == 0);
    while (!ended || syscall(SYS_tgkill, getpid(), ended, 0) == 0) usleep(1000);
}
static __thread Slot tls;
static void *in_tls(void *_) {
    keep_at(&tls);
    return _;
}
static void in_ended_tls(void) {
    lost = 0;
    start_and_join(in_tls);
}
static void *in_loaded_tls(void *_) {
    Slot *(*get)(void) = (Slot * (*)(void)) dlsym(global, "loaded_tls");
    keep_at(get());
    return _;
}
static void in_ended_loaded_tls(void) {
    lost = 0;
    check((global = dlopen(LIBRARY, RTLD_NOW)) != 0);
    start_and_join(in_loaded_tls);
}
static pthread_key_t keys[64];
static int which;
static NOINLINE void set_specific(void) { pthread_setspecific(keys[which], make()); }
static void *in_specific(void *_) {
    below(set_specific);
    return _;
}
static void make_keys(int key) {
    for (int i = 0; i < 64; i++) check(pthread_key_create(&keys[i], 0) == 0);
    which = key;
}
static void in_ended_specific(void) {
    make_keys(3);
    start_and_join(in_specific);
}
static void in_ended_late_specific(void) {
    make_keys(60);
    start_and_join(in_specific);
}
static void in_deleted_key(void) {
    make_keys(3);
    in_specific(0);
    check(pthread_key_delete(keys[3]) == 0);
}
// The argument that a running thread was given and has forgotten.
static void *dropping_thread(void *_) {
    (void)_;
    park();
    return 0;
}
static NOINLINE void create_dropping(void) {
    pthread_t thread;
    check(pthread_create(&thread, 0, dropping_thread, HIDDEN) == 0);
    wait_ready();
    hidden = 0;
}
static void in_dropped_argument(void) {
    below(put_hidden);
    below(create_dropping);
}
static void *returning_thread(void *_) { return _; }
static NOINLINE void create_and_join(void) {
    pthread_t thread;
    check(pthread_create(&thread, 0, returning_thread, HIDDEN) == 0);
    pthread_join(thread, 0);
    hidden = 0;
}
static void in_joined_result(void) {
    below(put_hidden);
    below(create_and_join);
}

// Pages that the program has given back, and others behind them: the kernel keeps its books of pages in batches.
static Slot *page;
static void give_back_more(void) {
    char *pages = map(200 * 4096);
    for (int i = 0; i < 200; i++) pages[i * 4096] = 1;
    if (madvise(pages, 200 * 4096, MADV_FREE) != 0) not_here("this kernel has no MADV_FREE");
    munmap(pages, 200 * 4096);
}
static void in_page_given_back(void) {
    lost = 0;
    page = map(4096);
    keep_at(page + 5);
    give_back_more();
    check(madvise((void *)page, 4096, MADV_FREE) == 0);
    give_back_more();
}

static const struct choice stale[] = {
    {"freed_block", in_freed_block},
    {"freed_block_with_pointer", in_freed_block_with_pointer},
    {"recycled_block", in_recycled_block},
    {"shrunk_block", behind_shrunk_block},
    {"popped_frame", popped_frame},
    {"popped_frame_of_thread", popped_frame_of_thread},
    {"popped_frame_on_block", popped_frame_on_block},
    {"popped_frame_on_mapping", popped_frame_on_mapping},
    {"ended_coroutine", on_stack_of_ended_coroutine},
    {"left_on_alternate_block", on_alternate_block},
    {"left_on_alternate_mapping", on_alternate_mapping},
    {"ended_stack", on_ended_stack},
    {"detached_stack", on_detached_stack},
    {"ended_tls", in_ended_tls},
    {"ended_loaded_tls", in_ended_loaded_tls},
    {"ended_specific", in_ended_specific},
    {"ended_late_specific", in_ended_late_specific},
    {"deleted_key", in_deleted_key},
    {"dropped_argument", in_dropped_argument},
    {"joined_result", in_joined_result},
    {"page_given_back", in_page_given_back},
};
MAIN_LOOKS(stale)
