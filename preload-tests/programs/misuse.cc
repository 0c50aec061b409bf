// Blocks freed the wrong way. What libc does about it is up to libc.
#include "test.h"
#include <cerrno>
#include <cstdint>
#include <new>

extern "C" {
NOINLINE void *made_here() { return memset(malloc(40), 0, 40); }
NOINLINE void freed_here(void *block) { free(block); }
NOINLINE void freed_again(void *block) { free(block); }
NOINLINE int *array_made_here() { return new int[10]; }
NOINLINE int *object_made_here() { return new int; }
NOINLINE void deleted_here(int *object) { delete object; }
// operator delete of no block, and then a free from the same stack pointer.
NOINLINE void nothing_and_then(void *nothing, void *block) {
    ::operator delete(nothing);
    free(block);
}
NOINLINE void nothing_and_then_array(void *nothing, int *array) {
    ::operator delete(nothing);
    delete[] array;
}
NOINLINE void realloced_here(void *block) { freed_here(realloc(block, 100)); }
}

int main(int, char **words) {
    const char *what = words[1];
    if (is(what, "double")) {
        void *block = made_here();
        freed_here(block);
        freed_again(block);
    } else if (is(what, "twice_and_again")) {
        void *block = made_here();
        freed_here(block);
        freed_again(block);
        void *one = made_here(), *other = made_here();
        check(one != other);
        freed_here(one);
        freed_here(other);
    } else if (is(what, "double_delete")) {
        int *object = object_made_here();
        deleted_here(object);
        deleted_here(object);
    } else if (is(what, "realloc_of_freed")) {
        void *block = made_here();
        freed_here(block);
        realloced_here(block);
    } else if (is(what, "wild")) {
        freed_here(static_cast<char *>(made_here()) + 8);
    } else if (is(what, "wild_on_stack")) {
        // Where no block begins, with nothing before it by which glibc would take it for a mapped one.
        alignas(16) char room[64] = {};
        freed_here(room + 8);
    } else if (is(what, "again")) {
        // The same address for another block is no second free.
        for (int i = 0; i < 1000; i++) freed_here(made_here());
    } else if (is(what, "nothing")) {
        for (int i = 0; i < 10; i++) {
            nothing_and_then(nullptr, made_here());
            nothing_and_then_array(nullptr, array_made_here());
        }
    } else if (is(what, "mismatch")) {
        for (volatile int i = 0; i < 3; i = i + 1) deleted_here(array_made_here());
        freed_here(object_made_here());
    } else {
        check(is(what, "refused"));
        volatile size_t huge = SIZE_MAX / 4 + 2;
        errno = 0;
        check(calloc(huge, 4) == nullptr && errno == ENOMEM);
        errno = 0;
        check(reallocarray(nullptr, huge, 4) == nullptr && errno == ENOMEM);
        char *block = static_cast<char *>(made_here());
        strcpy(block, "as it was");
        errno = 0;
        check(realloc(block, PTRDIFF_MAX) == nullptr && errno == ENOMEM && is(block, "as it was"));
        errno = 0;
        check(reallocarray(block, huge, 4) == nullptr && errno == ENOMEM && is(block, "as it was"));
        freed_here(block);
    }
    return 0;
}
