// Takes a block by the function that the first argument names. Second argument: `keep` (a global points to it), `lose`, or
// `release` (it is freed again).
#include "test.h"
#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <stdint.h>
#include <stdio.h>
#include <wchar.h>

static void *by_malloc(void) { return malloc(1337); }
static void *by_calloc(void) {
    char *block = calloc(7, 191);
    for (int i = 0; i < 7 * 191; i++) check(block[i] == 0);
    return block;
}
static void *by_realloc_of_nothing(void) { return realloc(NULL, 1337); }
static char *filled(size_t size) {
    char *block = malloc(size);
    for (size_t i = 0; i < size; i++) block[i] = (char)i;
    return block;
}
static void *by_growing(void) {
    char *block = realloc(filled(100), 1337);
    for (int i = 0; i < 100; i++) check(block[i] == (char)i);
    return block;
}
static void *by_shrinking(void) {
    char *block = realloc(filled(5000), 1337);
    for (int i = 0; i < 1337; i++) check(block[i] == (char)i);
    return block;
}
static void *by_moving(void) {
    char *block = filled(900);
    void *in_the_way = malloc(4000);
    uintptr_t old = (uintptr_t)block;
    block = realloc(block, 1337);
    check((uintptr_t)block != old);
    free(in_the_way);
    return block;
}
static void *by_moving_between_mappings(void) {
    char *block = filled(300000);
    block = realloc(block, 900001);
    for (int i = 0; i < 300000; i++) check(block[i] == (char)i);
    return realloc(block, 1337);
}
static void *by_realloc_that_fails(void) {
    char *block = filled(1337);
    errno = 0;
    check(realloc(block, PTRDIFF_MAX) == NULL && errno == ENOMEM);
    check(reallocarray(block, SIZE_MAX / 2, 3) == NULL && errno == ENOMEM);
    for (int i = 0; i < 1337; i++) check(block[i] == (char)i);
    return block;
}
static void *by_realloc_to_nothing(void) {
    check(realloc(malloc(2000), 0) == NULL);
    return malloc(1337);
}
static void *by_reallocarray(void) { return reallocarray(malloc(10), 7, 191); }
static void *by_posix_memalign(void) {
    void *block = NULL;
    check(posix_memalign(&block, 64, 1337) == 0 && (uintptr_t)block % 64 == 0);
    return block;
}
static void *by_posix_memalign_of_pages(void) {
    void *block = NULL;
    check(posix_memalign(&block, 65536, 1337) == 0 && (uintptr_t)block % 65536 == 0);
    return block;
}
static void *by_aligned_alloc(void) {
    void *block = aligned_alloc(128, 1337);
    check((uintptr_t)block % 128 == 0);
    return block;
}
static void *by_memalign(void) {
    void *block = memalign(256, 1337);
    check((uintptr_t)block % 256 == 0);
    return block;
}
static void *by_valloc(void) {
    void *block = valloc(1337);
    check((uintptr_t)block % 4096 == 0);
    return block;
}
static void *by_pvalloc(void) {
    void *block = pvalloc(1337);
    check((uintptr_t)block % 4096 == 0);
    return block;
}
static char *long_text(void) {
    static char text[1337];
    memset(text, 'x', 1336);
    return text;
}
static void *by_strdup(void) { return strdup(long_text()); }
static void *by_strndup(void) { return strndup(long_text(), 1336); }
static void *by_asprintf(void) {
    char *text = NULL;
    check(asprintf(&text, "%s%d", long_text() + 4, 1337) == 1336);
    return text;
}
static void *by_getline(void) {
    char *line = NULL;
    size_t size = 0;
    int ends[2];
    check(pipe(ends) == 0 && write(ends[1], long_text() + 1, 1335) == 1335 && write(ends[1], "\n", 1) == 1);
    FILE *from = fdopen(ends[0], "r");
    check(getline(&line, &size, from) == 1336);
    fclose(from);
    return line;
}
static void *by_filling_what_is_usable(void) {
    char *block = malloc(1337);
    size_t usable = malloc_usable_size(block);
    check(usable >= 1337);
    memset(block, 0xa5, usable);
    return block;
}

static const struct {
    const char *name;
    void *(*take)(void);
} entries[] = {
    {"malloc", by_malloc},
    {"calloc", by_calloc},
    {"realloc_of_nothing", by_realloc_of_nothing},
    {"growing", by_growing},
    {"shrinking", by_shrinking},
    {"moving", by_moving},
    {"moving_between_mappings", by_moving_between_mappings},
    {"realloc_that_fails", by_realloc_that_fails},
    {"realloc_to_nothing", by_realloc_to_nothing},
    {"reallocarray", by_reallocarray},
    {"posix_memalign", by_posix_memalign},
    {"posix_memalign_of_pages", by_posix_memalign_of_pages},
    {"aligned_alloc", by_aligned_alloc},
    {"memalign", by_memalign},
    {"valloc", by_valloc},
    {"pvalloc", by_pvalloc},
    {"strdup", by_strdup},
    {"strndup", by_strndup},
    {"asprintf", by_asprintf},
    {"getline", by_getline},
    {"filling_what_is_usable", by_filling_what_is_usable},
};

static void *(*take)(void);
static void *volatile kept;
static void (*volatile release)(void *);
static NOINLINE void lose(void) {
    void *block = take();
    check(block != NULL);
    if (release) release(block);
}
static NOINLINE void keep(void) { kept = take(); }
// Not in every libc and its headers; the library has them all.
static void release_sized(void *block) {
    ((void (*)(void *, size_t))dlsym(RTLD_DEFAULT, "free_sized"))(block, 1337);
}
static void release_aligned_sized(void *block) {
    ((void (*)(void *, size_t, size_t))dlsym(RTLD_DEFAULT, "free_aligned_sized"))(block, 64, 1337);
}
static void release_old(void *block) { ((void (*)(void *))dlsym(RTLD_DEFAULT, "cfree"))(block); }

// One lost block of each size.
static size_t from, to;
static NOINLINE void lose_every_size(void) {
    for (size_t size = from; size <= to; size++) {
        char *block = malloc(size);
        check(block != NULL);
        memset(block, 0, size);
        *(char *volatile *)&block = NULL;
    }
}
static NOINLINE void lose_large(void) {
    static const size_t sizes[] = {131071, 131072 - 24, 132001, 1 << 20, (1 << 20) + 7, (32 << 20) + 1, (64 << 20) - 13};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) check(malloc(sizes[i]) != NULL);
}

// errno is what the real functions leave: untouched where they succeed, and by free.
static void errno_is_kept(void) {
    void *blocks[8] = {0};
    errno = 77;
    blocks[0] = malloc(1000);
    blocks[1] = calloc(10, 10);
    blocks[2] = realloc(NULL, 200000);
    blocks[2] = realloc(blocks[2], 900000);
    blocks[3] = memalign(64, 100);
    blocks[4] = aligned_alloc(64, 128);
    check(posix_memalign(&blocks[5], 64, 100) == 0);
    blocks[6] = malloc(64 << 20);
    blocks[7] = reallocarray(NULL, 3, 5);
    check(errno == 77);
    for (int i = 0; i < 8; i++) free(blocks[i]);
    free(NULL);
    check(errno == 77);
    check(malloc(PTRDIFF_MAX) == NULL && errno == ENOMEM);
    errno = 0;
    check(calloc(SIZE_MAX / 2, 3) == NULL && errno == ENOMEM);
    errno = 0;
    check(malloc(SIZE_MAX) == NULL && errno == ENOMEM);
    errno = 0;
    check(aligned_alloc(64, PTRDIFF_MAX) == NULL && errno == ENOMEM);
    errno = 78;
    check(posix_memalign(&blocks[0], 3, 8) == EINVAL && errno == 78);
    errno = 0;
    check(pvalloc(SIZE_MAX - 100) == NULL && errno == ENOMEM);
}

// Blocks that did not come by us.
extern void *__libc_malloc(size_t);
static void unknown_pointers(void) {
    for (int i = 0; i < 3; i++) free(__libc_malloc(500));
    char *block = __libc_malloc(600);
    block[0] = 7;
    block = realloc(block, 1337);
    check(block[0] == 7);
    free(block);
}

// dlsym frees what it has allocated: also what it allocated on behalf of the library.
static void dlsym_that_fails(void) {
    check(dlsym(RTLD_DEFAULT, "there_is_no_such_function") == NULL && dlerror() != NULL && dlerror() == NULL);
}

static NOINLINE int run(int count, char **words) {
    check(count >= 3);
    if (is(words[1], "errno")) errno_is_kept();
    if (is(words[1], "unknown")) unknown_pointers();
    if (is(words[1], "dlsym")) dlsym_that_fails();
    if (is(words[1], "sizes")) {
        from = (size_t)atol(words[2]);
        to = (size_t)atol(words[3]);
        below(lose_every_size);
    }
    if (is(words[1], "large")) below(lose_large);
    for (size_t i = 0; i < sizeof entries / sizeof *entries; i++) {
        if (!is(words[1], entries[i].name)) continue;
        take = entries[i].take;
        if (is(words[2], "release")) release = free;
        if (is(words[2], "free_sized")) release = release_sized;
        if (is(words[2], "free_aligned_sized")) release = release_aligned_sized;
        if (is(words[2], "cfree")) release = release_old;
        check(release || is(words[2], "keep") || is(words[2], "lose"));
        below(is(words[2], "keep") ? keep : lose);
        return 0;
    }
    return 0;
}

// What `main` has below it is cleared before the frames of exit come to lie there, which leave words of the past as they are.
int main(int count, char **words) {
    int status = run(count, words);
    scrub();
    return status;
}
