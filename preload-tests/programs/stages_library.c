// flags: -shared -fPIC
// A library that allocates as soon and as late as it can: before and behind libleakscan.so in LD_PRELOAD.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char *kept;
__attribute__((constructor(101))) static void constructor(void) {
    kept = strdup("kept from the constructor to the destructor");
    free(realloc(malloc(10), 10000));
}
__attribute__((destructor(101))) static void destructor(void) {
    char *copy = malloc(strlen(kept) + 2);
    strcpy(copy, kept);
    free(kept);
    kept = calloc(2, 1000);
    strcat(copy, "\n");
    if (write(1, copy, strlen(copy)) < 0) abort();
    free(copy);
    free(kept);
}
