// What programs do with the dynamic loader and with their own memory that a library in it has to bear.
#include "test.h"
#include <dlfcn.h>
#include <malloc.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>

static NOINLINE void lose(void) { memset(malloc(1337), 0, 1337); }
static void *volatile kept;
extern char **environ;

int main(int count, char **words) {
    check(count >= 2);
    const char *what = words[1];
    if (is(what, "deep")) {
        // The library finds libc's malloc before ours.
        void *library = dlopen(words[2], RTLD_NOW | RTLD_DEEPBIND);
        check(library != 0);
        check(dlclose(library) == 0);
    } else if (is(what, "dlerror")) {
        // No error of anybody else's.
        check(dlerror() == 0);
        check(dlopen("/no/such/library.so", RTLD_NOW) == 0);
        scan();
        free(malloc(10));
        const char *error = dlerror();
        check(error && strstr(error, "/no/such/library.so") != 0 && dlerror() == 0);
    } else if (is(what, "statistics")) {
        kept = malloc(1 << 20);
        struct mallinfo2 info = mallinfo2();
        check(info.hblkhd >= 1 << 20);
        check(mallopt(M_MMAP_THRESHOLD, 1 << 16) == 1 && malloc_trim(0) >= 0);
        free(kept);
        kept = malloc(1 << 17);
        free(kept);
    } else if (is(what, "namespace")) {
        void *library = dlmopen(LM_ID_NEWLM, words[2], RTLD_NOW);
        check(library != 0);
        scan();
        check(dlclose(library) == 0);
    } else if (is(what, "locked")) {
        check(mlockall(MCL_CURRENT | MCL_FUTURE) == 0);
        for (int i = 0; i < 1000; i++) free(malloc((size_t)i));
    } else if (is(what, "huge")) {
        // Reserved, not used: no scan may touch it.
        kept = mmap(0, 1ul << 40, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        check(kept != MAP_FAILED);
        ((char *)kept)[1ul << 39] = 1;
    } else if (is(what, "cut_file")) {
        // The second page of the mapping has nothing behind it: reading it is a SIGBUS.
        FILE *file = tmpfile();
        check(ftruncate(fileno(file), 8192) == 0);
        char *at = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fileno(file), 0);
        at[0] = at[5000] = 1;
        check(ftruncate(fileno(file), 100) == 0);
        fclose(file);
    } else if (is(what, "retitled")) {
        // As setproctitle does.
        char *end = words[0];
        for (char **word = environ; *word; word++) end = *word + strlen(*word);
        static char *none[1];
        environ = none;
        memset(words[0], 0, (size_t)(end - words[0]));
        strcpy(words[0], "retitled");
        below(lose);
        say("up");
        hear();
        return 0;
    } else {
        return 96;
    }
    below(lose);
    scan();
    return 0;
}
