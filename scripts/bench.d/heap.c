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

/* A tree, in depth-first order, with a payload behind each node. */
struct node {
    struct node *left, *right;
    void *payload;
};
static struct node *root;
static size_t payload_size;

static struct node *build(size_t nodes)
{
    if (nodes == 0)
        return NULL;
    struct node *node = malloc(sizeof *node);
    /* Between half and one and a half times the mean, so that no two neighbours are alike. */
    size_t size = payload_size / 2 + nodes * 2654435761u % payload_size;
    node->payload = malloc(size);
    memset(node->payload, 0x5a, size);
    node->left = build((nodes - 1) / 2);
    node->right = build(nodes - 1 - (nodes - 1) / 2);
    return node;
}

int main(int argc, char **argv)
{
    size_t blocks = argc > 1 ? strtoul(argv[1], NULL, 0) : 1000000;
    size_t bytes = argc > 2 ? strtoul(argv[2], NULL, 0) : 400000000;
    payload_size = bytes / (blocks / 2) - sizeof *root;
    root = build(blocks / 2);
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
