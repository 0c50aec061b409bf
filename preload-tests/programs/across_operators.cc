// flags: -ldl
// Objects that a library makes by operators of its own (its path is the first word), or is given to delete.
#include "test.h"
#include <dlfcn.h>
#include <new>

static void *library;
static int *from_library(const char *name) { return reinterpret_cast<int *(*)()>(dlsym(library, name))(); }

extern "C" {
NOINLINE void object_deleted_here(int *object) { delete object; }
NOINLINE void array_deleted_here(int *array) { delete[] array; }
}

int main(int, char **words) {
    library = dlopen(words[1], RTLD_NOW);
    check(library);
    if (is(words[2], "right")) {
        object_deleted_here(from_library("object_of_library"));
        array_deleted_here(from_library("array_of_library"));
        reinterpret_cast<void (*)(int *)>(dlsym(library, "library_deletes"))(new int);
    } else {
        check(is(words[2], "wrong"));
        array_deleted_here(from_library("object_of_library"));
        object_deleted_here(from_library("array_of_library"));
    }
    return 0;
}
