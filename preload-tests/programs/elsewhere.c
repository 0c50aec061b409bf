// flags: -no-pie -fno-omit-frame-pointer
// Code of the program's file that is mapped a second time, elsewhere, makes a block of 1337 bytes that is lost.
#define _GNU_SOURCE
#include "test.h"
#include <fcntl.h>
#include <stdint.h>
#include <sys/mman.h>

typedef void *Make(size_t);
extern char __executable_start[];

// (It calls nothing by distance.)
NOINLINE void *through(Make *make, size_t size) {
    void *made = make(size);
    __asm__ volatile("" : "+r"(made));
    return made;
}

static void *(*there)(Make *, size_t);
static void lose(void) { there(malloc, 1337); }

int main(void) {
    int file = open("/proc/self/exe", O_RDONLY);
    uintptr_t page = (uintptr_t)through & ~(uintptr_t)4095;
    char *copy = mmap(0, 8192, PROT_READ | PROT_EXEC, MAP_PRIVATE, file, page - (uintptr_t)__executable_start);
    check(file >= 0 && copy != MAP_FAILED);
    there = (void *(*)(Make *, size_t))(copy + ((uintptr_t)through & 4095));
    below(lose);
    scan();
    return 0;
}
