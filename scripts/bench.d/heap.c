/* A heap of a million blocks and 400 MB, all of them reachable, and one leak check of it: heap [BLOCKS [BYTES]].
 *
 * Built with -fsanitize=leak -DLSAN it prints the microseconds of LeakSanitizer's own check, in which every other thread stands
 * still from beginning to end. Without, it prints "ready", and ends when its standard input does: the check is `leakscan scan`. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#ifdef LSAN
#include <sanitizer/lsan_interface.h>
#endif

/* A table of nodes, each with a payload and a pointer to a node made earlier. */
struct node {
    struct node *earlier;
    void *payload;
};
struct node **volatile table;

static void build(size_t nodes, size_t mean)
{
    table = malloc(nodes * sizeof *table);
    for (size_t i = 0; i < nodes; i++) {
        /* Between half and one and a half times the mean, so that no two neighbours are alike. */
        size_t size = mean / 2 + i * 2654435761u % mean;
        struct node *node = malloc(sizeof *node);
        node->payload = malloc(size);
        memset(node->payload, 0x5a, size);
        node->earlier = i ? table[i * 40503u % i] : NULL;
        table[i] = node;
    }
}

int main(int argc, char **argv)
{
    size_t blocks = argc > 1 ? strtoul(argv[1], NULL, 0) : 1000000;
    size_t bytes = argc > 2 ? strtoul(argv[2], NULL, 0) : 400000000;
    build(blocks / 2, bytes / (blocks / 2) - sizeof(struct node));
#ifdef LSAN
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    int leaks = __lsan_do_recoverable_leak_check();
    clock_gettime(CLOCK_MONOTONIC, &end);
    if (leaks)
        return 1;
    printf("%.0f\n", (end.tv_sec - begin.tv_sec) * 1e6 + (end.tv_nsec - begin.tv_nsec) / 1e3);
#else
    puts("ready");
    fflush(stdout);
    getchar();
#endif
    return 0;
}
