// What the test programs share: losing a pointer for good, and talking to the test.
#pragma once
#include "leakscan.h"
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline, noclone))

// Overwrites every register that may hold a stale pointer.
static inline __attribute__((always_inline)) void scrub_registers(void) {
    __asm__ volatile("xor %%eax, %%eax\n xor %%ecx, %%ecx\n xor %%edx, %%edx\n xor %%esi, %%esi\n xor %%edi, %%edi\n"
                     "xor %%r8d, %%r8d\n xor %%r9d, %%r9d\n xor %%r10d, %%r10d\n xor %%r11d, %%r11d\n xor %%ebx, %%ebx\n"
                     "xor %%r12d, %%r12d\n xor %%r13d, %%r13d\n xor %%r14d, %%r14d\n xor %%r15d, %%r15d\n"
                     "pxor %%xmm0, %%xmm0\n pxor %%xmm1, %%xmm1\n pxor %%xmm2, %%xmm2\n pxor %%xmm3, %%xmm3\n"
                     "pxor %%xmm4, %%xmm4\n pxor %%xmm5, %%xmm5\n pxor %%xmm6, %%xmm6\n pxor %%xmm7, %%xmm7\n"
                     "pxor %%xmm8, %%xmm8\n pxor %%xmm9, %%xmm9\n pxor %%xmm10, %%xmm10\n pxor %%xmm11, %%xmm11\n"
                     "pxor %%xmm12, %%xmm12\n pxor %%xmm13, %%xmm13\n pxor %%xmm14, %%xmm14\n pxor %%xmm15, %%xmm15\n" ::
                         : "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "rbx", "r12", "r13", "r14",
                           "r15", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",
                           "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "memory");
}

// The stack below the caller, too.
static NOINLINE __attribute__((unused)) void scrub(void) {
    volatile char room[96 << 10];
    for (size_t i = 0; i < sizeof room; i++) room[i] = 0;
    scrub_registers();
}

// Calls `function` far down the stack and leaves nothing of it there.
static NOINLINE __attribute__((unused)) void deeply(void (*function)(void)) {
    volatile char room[16 << 10];
    room[0] = 0;
    function();
    room[1] = room[0];
}
static __attribute__((unused)) void below(void (*function)(void)) {
    deeply(function);
    scrub();
}

// Goes on for so long, without a system call in between.
static __attribute__((unused)) void spin(long nanoseconds) {
    struct timespec now, begin;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    do clock_gettime(CLOCK_MONOTONIC, &now);
    while ((now.tv_sec - begin.tv_sec) * 1000000000l + now.tv_nsec - begin.tv_nsec < nanoseconds);
}

// Scans now, with nothing of the caller's past in the way.
static __attribute__((unused)) void scan(void) {
    scrub();
    LEAKSCAN_SCAN();
}

// A line to the test, without stdio, which would allocate.
static __attribute__((unused)) void say(const char *line) {
    size_t length = strlen(line);
    if (write(1, line, length) != (ssize_t)length || write(1, "\n", 1) != 1) _exit(98);
}

// Waits for a line from the test, or for the end of its input.
static __attribute__((unused)) void hear(void) {
    char byte = 0;
    while (byte != '\n' && read(0, &byte, 1) == 1) {
    }
}

static __attribute__((unused)) int is(const char *word, const char *other) { return strcmp(word, other) == 0; }

// Ends the program with status 97 and the line that failed.
#define check(fact)                                                                                                    \
    do {                                                                                                               \
        if (!(fact)) {                                                                                                 \
            say(__FILE__ ": false: " #fact);                                                                           \
            _exit(97);                                                                                                 \
        }                                                                                                              \
    } while (0)
