// Loses or keeps one block of 1337 bytes, and becomes echo by the form of exec that the first argument names, or in a child.
#include "test.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define ECHO "/bin/echo"
#define WORDS "echo", "1", "2", "3", "4", "5", "6", "7", "8", "9", (char *)0
static char *words[] = {WORDS};
extern char **environ;
static void *volatile kept;
static NOINLINE void lose(void) { memset(malloc(1337), 0, 1337); }
static NOINLINE void keep(void) { kept = malloc(1337); }

static long pages(void) {
    char text[32] = "";
    int file = open("/proc/self/statm", O_RDONLY);
    check(file >= 0 && read(file, text, sizeof text - 1) > 0 && close(file) == 0);
    return atol(text);
}

// So many times to become what is no program: as executable as a file can be, and of no format that the kernel knows. After the first
// times no more memory is mapped.
static int no_program(int times) {
    char path[] = "no_program.XXXXXX";
    int file = mkstemp(path);
    check(file >= 0 && write(file, "\1\2\3", 3) == 3 && fchmod(file, 0700) == 0 && close(file) == 0);
    long before = 0;
    for (int i = 0; i < times; i++) {
        if (i == 3) before = pages();
        check(execv(path, words) == -1 && errno == ENOEXEC);
    }
    check(times <= 3 || pages() == before);
    check(unlink(path) == 0);
    return 5;
}

int main(int count, char **given) {
    check(count == 3);
    const char *form = given[1];
    below(is(given[2], "lose") ? lose : keep);
    if (is(form, "execve")) execve(ECHO, words, environ);
    if (is(form, "syscall")) syscall(SYS_execve, ECHO, words, environ);
    if (is(form, "execv")) execv(ECHO, words);
    if (is(form, "execvp")) execvp("echo", words);
    if (is(form, "execvpe")) execvpe("echo", words, environ);
    if (is(form, "execl")) execl(ECHO, WORDS);
    if (is(form, "execle")) execle(ECHO, WORDS, environ);
    if (is(form, "execlp")) execlp("echo", WORDS);
    if (is(form, "fexecve")) fexecve(open(ECHO, O_RDONLY), words, environ);
    if (is(form, "no_program")) return no_program(1);
    if (is(form, "no_programs")) return no_program(100);
    if (is(form, "locked_no_programs")) {
        check(mlockall(MCL_CURRENT | MCL_FUTURE) == 0);
        return no_program(100);
    }
    if (is(form, "nothing")) {
        check(execv("/nowhere/at all", words) == -1 && errno == ENOENT);
        return 5;
    }
    int status;
    if (is(form, "forked") && fork() == 0) execv(ECHO, words);
    if (is(form, "vforked") && vfork() == 0) execv(ECHO, words);
    check(wait(&status) > 0 && status == 0);
    return 0;
}
