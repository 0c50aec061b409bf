// Begins as root and becomes user 65534, by which nobody else may look into it. A block's only pointer is where the first argument says; the
// second one may say that it is lost.
#define _GNU_SOURCE
#include "test.h"
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>

static long system_call(long number, long a, long b, long c) {
    long result = number;
    __asm__ volatile("syscall" : "+a"(result) : "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
}

static timer_t timer;
static void *volatile *page;
static NOINLINE void *make(void) { return memset(malloc(1337), 0, 1337); }
static void in_timer(void) {
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1, .sigev_value.sival_ptr = make()};
    check(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
}
static void in_page(void) { *page = make(); }

int main(int count, char **words) {
    check(count == 3);
    page = mmap(0, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(page != MAP_FAILED);
    if (is(words[1], "timer")) below(in_timer);
    else below(in_page);
    // Past libc.
    if (is(words[1], "left out")) check(system_call(SYS_madvise, (long)page, 1 << 20, MADV_DONTFORK) == 0);
    check(setuid(65534) == 0);
    if (is(words[2], "lose")) {
        if (is(words[1], "timer")) check(timer_delete(timer) == 0);
        else *page = 0;
    }
    scan();
    scan();
    return 0;
}
