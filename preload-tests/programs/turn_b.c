// flags: -shared -fPIC
// One of two libraries with the same layout but other frames, for stacks.c.
#include <stdlib.h>
#include <string.h>

static __attribute__((noinline)) void inner(void (*function)(int), int number) {
    volatile char room[360];
    room[number] = 1;
    function(number);
    room[number + 1] = 2;
}
void work(void (*function)(int), int number) {
    volatile char room[64];
    room[number] = 1;
    inner(function, number);
    room[number] = 2;
}
void lose_in_b(void) { memset(malloc(1337), 0, 1337); }
