// Makes a scan after each of the test's lines, and says whether it was made; loses one block more each time. First argument:
// what to do before all that.
#include "test.h"
#include <fcntl.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>

static NOINLINE void lose(void) { memset(malloc(1337), 0, 1337); }

static void limit(int resource, rlim_t value) {
    struct rlimit limit = {value, value};
    check(setrlimit(resource, &limit) == 0);
}

int main(int count, char **words) {
    char line[300];
    if (count > 1 && is(words[1], "no_file_size")) limit(RLIMIT_FSIZE, 0);
    if (count > 1 && is(words[1], "no_descriptors")) limit(RLIMIT_NOFILE, 3);
    if (count > 1 && is(words[1], "title")) memset(words[0], 'x', strlen(words[0]));
    if (count > 1 && is(words[1], "closed")) {
        close(1);
        close(2);
    }
    if (count > 1 && is(words[1], "umask")) umask(0);
    say("up");
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = 0;
        if (*line == '/') check(chdir(line) == 0);
        if (is(line, "limit")) limit(RLIMIT_FSIZE, 700);
        below(lose);
        scrub();
        say(LEAKSCAN_SCAN() ? "made" : "not made");
    }
    return 0;
}
