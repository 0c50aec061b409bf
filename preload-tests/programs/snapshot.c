// Keeps so much that a scan takes a while; does what the test's lines say.
#include "test.h"
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>

typedef struct Node {
    struct Node *next;
    char rest[40];
} Node;
static Node *volatile head;
static NOINLINE void fill(void) {
    for (int i = 0; i < 1500000; i++) {
        Node *node = malloc(sizeof *node);
        node->next = head;
        head = node;
    }
}
static NOINLINE void lose(void) { memset(malloc(1337), 0, 1337); }

int main(void) {
    int ends[2];
    char line[64] = "";
    below(fill);
    below(lose);
    check(pipe(ends) == 0);
    say("up");
    while (fgets(line, sizeof line, stdin)) {
        if (is(line, "close\n")) {
            // A copy of this end that somebody else holds delays the end of file.
            close(ends[1]);
            struct pollfd end = {.fd = ends[0], .events = POLLIN};
            check(poll(&end, 1, 20000) == 1 && end.revents & POLLHUP);
            say("closed");
        } else if (is(line, "wait\n")) {
            say(waitpid(-1, 0, WNOHANG) == -1 ? "no child" : "a child");
        } else if (is(line, "allocate\n")) {
            for (int i = 0; i < 5000; i++) free(malloc(100));
            say("allocated");
        } else if (is(line, "scan\n")) {
            say(LEAKSCAN_SCAN() ? "scanned" : "not scanned");
        }
    }
    return 0;
}
