// flags: -shared -fPIC
// What fontconfig does: a pattern knows its elements by how far behind it they lie.
#include <stdlib.h>
#include <string.h>

struct pattern {
    int count, size;
    long elements;
};

struct pattern *FcPatternCreate(void) {
    struct pattern *pattern = calloc(1, sizeof *pattern);
    // Not right behind it.
    void *between = malloc(300);
    char *elements = calloc(84, 16);
    *pattern = (struct pattern){1, 84, elements - (char *)pattern};
    *(char *volatile *)elements = calloc(1, 100);
    free(between);
    return pattern;
}
