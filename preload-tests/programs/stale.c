// The last copy of a pointer to a block of 1337 bytes lies where the program will not look again, or nearby: on a stack of
// makecontext's, or under a key of pthread_key_create. The place is the first argument; the scan is the program's own call.
#include "test.h"
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <sys/mman.h>
#include <ucontext.h>

// FAR: words, beyond what of a stack is never taken for over.
enum { STACK = 256 << 10, ROOM = 96 << 10, FAR = 8000 };
static ucontext_t outside, inside;
static char *memory, *stack;
static uintptr_t hidden;

static NOINLINE void make(void) { hidden = ~(uintptr_t)malloc(1337); }
static NOINLINE void *pointer(void) { return (void *)~hidden; }
// Leaves the pointer deep below.
static NOINLINE void leave_deep(void) {
    void *volatile local = pointer();
    (void)local;
}
static NOINLINE void leave(void) {
    volatile char room[ROOM];
    room[0] = 0;
    leave_deep();
    hidden = 0;
    room[1] = room[0];
}
static void look(void) {
    scrub_registers();
    LEAKSCAN_SCAN();
}
static void on_part(char *where, size_t size, void (*routine)(void)) {
    stack = where;
    getcontext(&inside);
    inside.uc_stack.ss_sp = where;
    inside.uc_stack.ss_size = size;
    inside.uc_link = &outside;
    makecontext(&inside, routine, 0);
    swapcontext(&outside, &inside);
}
static void on(char *where, void (*routine)(void)) { on_part(where, STACK, routine); }
static char *map(int sharing) {
    char *mapped = mmap(0, STACK, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | sharing, -1, 0);
    check(mapped != MAP_FAILED);
    return mapped;
}

static void runs_and_left(void) {
    leave();
    look();
}
static void runs_and_has(void) {
    void *volatile local = pointer();
    hidden = 0;
    look();
    check(local);
}
// The program's own record in what it has declared to be a stack.
static void runs_over_a_header(void) {
    *(void *volatile *)(stack + 128) = pointer();
    hidden = 0;
    look();
}
static void ends(void) { leave(); }
static void nothing(void) {}
static void waits(void) {
    void *volatile local = pointer();
    hidden = 0;
    swapcontext(&inside, &outside);
    check(local);
}
// Nothing of the program's is changed, wherever it lies: not below the stack pointer either.
static void runs_over_a_mark(void) {
    memset(stack, 0x5a, 4096);
    look();
    for (int i = 0; i < 4096; i++) check(stack[i] == 0x5a);
    hidden = 0;
}

static void at_the_front(void) { memcpy(memory, &(void *){pointer()}, 8); }
static void freed_and_taken_again(void) {
    free(memory);
    void *volatile *block = calloc(1, STACK);
    check((char *)block == memory);
    block[FAR] = pointer();
    hidden = 0;
}

// The stack is in the midst of a block, which is freed and taken again: by small blocks, or as it was.
static void *volatile live[100];
static NOINLINE char *take(void) { return malloc(64 + STACK); }
static NOINLINE void small_blocks(void) {
    free(memory);
    for (int i = 0; i < 100; i++) live[i] = malloc(1000);
    check((char *)live[50] > memory && (char *)live[50] < memory + STACK);
    *(void *volatile *)live[50] = pointer();
    hidden = 0;
}
static NOINLINE void the_same_again(void) {
    char *volatile before = memory;
    free(memory);
    memory = take();
    check(memory == before);
    ((void *volatile *)memory)[FAR] = pointer();
    hidden = 0;
}
// Threads whose stacks come to lie where a context's was.
static pthread_barrier_t there, done;
static void *standing_thread(void *_) {
    void *volatile block = malloc((size_t)_);
    pthread_barrier_wait(&there);
    pthread_barrier_wait(&done);
    free(block);
    return 0;
}
static void threads_instead(void) {
    enum { THREADS = 4, LARGE = 40 << 20 };
    char *mapped = mmap(0, LARGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    on_part(mapped, LARGE, scrub);
    munmap(mapped, LARGE);
    pthread_barrier_init(&there, 0, THREADS + 1);
    pthread_barrier_init(&done, 0, THREADS + 1);
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) check(pthread_create(&threads[i], 0, standing_thread, (void *)300) == 0);
    pthread_barrier_wait(&there);
    live[0] = pointer();
    hidden = 0;
    scan();
    pthread_barrier_wait(&done);
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], 0);
}

static pthread_key_t keys[64];
static int which;
static NOINLINE void set(void) { pthread_setspecific(keys[which], pointer()); }
static void make_keys(int key) {
    for (int i = 0; i < 64; i++) check(pthread_key_create(&keys[i], 0) == 0);
    which = key;
    below(set);
    hidden = 0;
}
static pthread_barrier_t set_there, looked;
static void *setting_thread(void *_) {
    (void)_;
    below(set);
    hidden = 0;
    scrub();
    pthread_barrier_wait(&set_there);
    pthread_barrier_wait(&looked);
    return 0;
}

// Memory of the program's own, whose pages it gives back and takes again.
enum { PAGE = 4096, PAGES = 3000 };
static char *own;
static void map_own(size_t pages) {
    own = mmap(0, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(own != MAP_FAILED);
    memset(own, 1, pages * PAGE);
}
static void put_at(int page) {
    ((void *volatile *)(own + page * PAGE))[7] = pointer();
    hidden = 0;
}
// The kernel keeps its books of pages in batches, of each processor.
static void fill_batches(void) {
    volatile char *pages = mmap(0, 200 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int page = 0; page < 200; page++) pages[page * PAGE] = 1;
    check(madvise((void *)pages, 200 * PAGE, MADV_FREE) == 0 && munmap((void *)pages, 200 * PAGE) == 0);
}
static void give_back(int page, int pages) { check(madvise(own + page * PAGE, pages * PAGE, MADV_FREE) == 0); }
static void give_back_every_other(void) {
    for (int page = 0; page < PAGES; page += 2) give_back(page, 1);
}
static void given_back(const char *what) {
    cpu_set_t first;
    CPU_ZERO(&first);
    CPU_SET(sched_getcpu(), &first);
    check(sched_setaffinity(0, sizeof first, &first) == 0);
    map_own(is(what, "page") ? 1 : PAGES);
    fill_batches();
    if (is(what, "page")) {
        put_at(0);
        give_back(0, 1);
    } else if (is(what, "page of many")) {
        put_at(1234);
        give_back(1234, 1);
    } else if (is(what, "page beside it")) {
        put_at(1234);
        give_back(1235, 700);
        give_back(900, 334);
    } else if (is(what, "every other page")) {
        put_at(1000);
        give_back_every_other();
    } else if (is(what, "the others")) {
        put_at(1001);
        give_back_every_other();
    } else if (is(what, "page taken again")) {
        give_back(0, PAGES);
        put_at(1234);
    } else if (is(what, "word beside it taken again")) {
        put_at(1234);
        give_back(0, PAGES);
        own[1234 * PAGE + 4000] = 1;
    } else if (is(what, "ring")) {
        for (int round = 0; round < 20; round++)
            for (int page = 0; page < PAGES; page++) {
                own[page * PAGE] = 2;
                give_back((page + PAGES / 2) % PAGES, 1);
            }
        put_at(PAGES - 1);
    } else check(0);
    fill_batches();
}

int main(int count, char **words) {
    check(count == 2);
    const char *place = words[1];
    // Blocks of all sizes come from the heap, and a freed one is the next of its size.
    check(mallopt(M_MMAP_THRESHOLD, 1 << 20) && mallopt(M_TRIM_THRESHOLD, 1 << 24));
    below(make);
    if (is(place, "running on a block")) on(memory = malloc(STACK), runs_and_left);
    else if (is(place, "running on a mapping")) on(map(MAP_PRIVATE), runs_and_left);
    else if (is(place, "frame on a block")) on(memory = malloc(STACK), runs_and_has);
    else if (is(place, "frame on a mapping")) on(map(MAP_PRIVATE), runs_and_has);
    else if (is(place, "shared mapping")) on(map(MAP_SHARED), runs_over_a_mark);
    else if (is(place, "private mapping")) on(map(MAP_PRIVATE), runs_over_a_mark);
    else if (is(place, "before the stack")) {
        // A block that is more than the stack.
        memory = malloc(64 + STACK);
        below(at_the_front);
        on(memory + 64, runs_and_left);
    } else if (is(place, "header in the stack")) {
        on(memory = malloc(STACK), runs_over_a_header);
    } else if (is(place, "ended")) {
        on(memory = malloc(STACK), ends);
        scan();
    } else if (is(place, "waiting")) {
        on(memory = malloc(STACK), waits);
        scan();
        swapcontext(&outside, &inside);
    } else if (is(place, "waiting where one has ended")) {
        on(memory = malloc(STACK), scrub);
        on(memory, waits);
        scan();
        swapcontext(&outside, &inside);
    } else if (is(place, "another block where one has ended")) {
        on(memory = malloc(STACK), scrub);
        below(freed_and_taken_again);
        scan();
    } else if (is(place, "small blocks where one has ended") || is(place, "the same block where one has ended")) {
        memory = take();
        on(memory + 64, scrub);
        below(is(place, "small blocks where one has ended") ? small_blocks : the_same_again);
        scan();
    } else if (is(place, "a pool where one has ended")) {
        // The program's own: a part of a block, and no word of it to anybody.
        memory = take();
        char *part = memory + 64 + STACK / 2;
        on_part(part, STACK / 2, nothing);
        live[0] = part;
        ((void *volatile *)live[0])[FAR] = pointer();
        hidden = 0;
        scan();
    } else if (is(place, "threads where one has ended")) {
        threads_instead();
    } else if (is(place, "key 3") || is(place, "key 60")) {
        make_keys(is(place, "key 3") ? 3 : 60);
        scan();
        pthread_key_delete(keys[which]);
        scan();
    } else if (is(place, "key made anew")) {
        make_keys(3);
        pthread_key_delete(keys[3]);
        check(pthread_key_create(&keys[3], 0) == 0 && !pthread_getspecific(keys[3]));
        scan();
    } else if (is(place, "key at the end")) {
        make_keys(3);
        pthread_key_delete(keys[3]);
        scrub();
    } else if (is(place, "key of a thread")) {
        for (int i = 0; i < 64; i++) check(pthread_key_create(&keys[i], 0) == 0);
        which = 3;
        pthread_barrier_init(&set_there, 0, 2);
        pthread_barrier_init(&looked, 0, 2);
        pthread_t thread;
        check(pthread_create(&thread, 0, setting_thread, 0) == 0);
        pthread_barrier_wait(&set_there);
        scan();
        pthread_key_delete(keys[3]);
        scan();
        pthread_barrier_wait(&looked);
        pthread_join(thread, 0);
    } else if (strncmp(place, "given back: ", 12) == 0) {
        given_back(place + 12);
        scan();
    } else check(0);
    return 0;
}
