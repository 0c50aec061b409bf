// Allocates in every stage of a program's life: before main, in main, in threads that end, after main. What each stage loses
// has its own size; what it keeps or frees is no leak.
#include "test.h"
#include <cstdio>
#include <pthread.h>
#include <string>
#include <thread>
#include <vector>

static NOINLINE void lose(size_t size) { memset(malloc(size), 0, size); }

// While ld.so relocates the program: before any constructor. (Since glibc 2.42 its malloc cannot be called there.)
extern "C" {
static int really(void) { return 42; }
static NOINLINE void lose_early(void) {
    if (__GLIBC_PREREQ(2, 42)) return;
    // Not memset: it may be an IFUNC itself that is not relocated yet.
    *(volatile char *)malloc(101) = 1;
    free(realloc(malloc(50), 500));
    free(calloc(3, 7));
}
static int (*resolve(void))(void) {
    lose_early();
    return really;
}
int chosen(void) __attribute__((ifunc("resolve")));
}

static void *volatile kept;
static NOINLINE void lose_in_constructor(void) { lose(203); }
__attribute__((constructor(101))) static void constructor(void) {
    below(lose_in_constructor);
    kept = malloc(1000);
}
static NOINLINE void lose_in_destructor(void) { lose(307); }
__attribute__((destructor)) static void destructor(void) {
    below(lose_in_destructor);
    free(kept);
    kept = 0;
}

static NOINLINE void lose_in_static_object(void) { lose(401); }
static NOINLINE void lose_in_end_of_static_object(void) { lose(503); }
static std::string *text;
static std::vector<std::string> *more;
static NOINLINE void make_more(void) {
    text = new std::string(1000, 'x');
    more = new std::vector<std::string>(100, std::string(100, 'y'));
}
// Leaves no pointer to what may be another block by then.
static NOINLINE void drop_more(void) {
    delete more;
    delete text;
    more = 0, text = 0;
}
struct Object {
    Object() {
        below(make_more);
        below(lose_in_static_object);
    }
    ~Object() {
        below(drop_more);
        below(lose_in_end_of_static_object);
    }
};
static Object object;

static NOINLINE void lose_at_exit(void) { lose(601); }
static void at_exit(void) { below(lose_at_exit); }

// Thread-local objects and keys whose destructors allocate, the last ones when all is over.
static NOINLINE void lose_in_end_of_thread(void) { lose(701); }
struct Local {
    std::string text;
    Local() : text(200, 'z') {}
    ~Local() {
        std::string other = text + text;
        below(lose_in_end_of_thread);
    }
};
static thread_local Local local;
static pthread_key_t key;
static NOINLINE void lose_in_key(void) { lose(809); }
static void key_ends(void *round) {
    below(lose_in_key);
    // pthreads calls it again: up to four times, or since glibc 2.42 for as long as there is a value.
    if ((size_t)round < 4) pthread_setspecific(key, (void *)((size_t)round + 1));
}
static NOINLINE void use_key(void) { pthread_setspecific(key, (void *)1); }
static void thread(void) {
    local.text += "more";
    use_key();
}

int main() {
    check(chosen() == 42);
    atexit(at_exit);
    check(pthread_key_create(&key, key_ends) == 0);
    std::thread(thread).join();
    local.text += "main's too";
    printf("%zu %zu %d\n", text->size(), more->size(), !__GLIBC_PREREQ(2, 42));
    return 0;
}
