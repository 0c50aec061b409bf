// flags: -shared -fPIC
// A C library for Python, loaded by planted_service.py through ctypes: keeps the first and the last profile that it was
// given, and forgets to free the others.
#include <stdlib.h>
#include <string.h>

struct profile {
    char name[40];
    double weights[500];
};
static struct profile *first, *last;
static int profiles;

int remember(const char *name) {
    struct profile *profile = calloc(1, sizeof *profile); // lost
    strncpy(profile->name, name, sizeof profile->name - 1);
    for (int i = 0; i < 500; i++) profile->weights[i] = (double)i / strlen(name);
    // The first is kept: its address was Python's before, whose memory may hold a pointer of the past to it.
    if (!first) first = profile;
    last = profile;
    return ++profiles;
}

double score(int times) {
    double sum = last ? last->weights[3] : 0;
    for (int i = 0; i < times; i++) {
        double *room = malloc(sizeof *room * (1 + i % 50));
        room[i % 50] = i;
        sum += room[i % 50];
        free(room);
    }
    return sum;
}
