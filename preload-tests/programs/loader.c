// Loads the library of the second argument and closes it again, as often as the first one says.
#include "test.h"
#include <dlfcn.h>

int main(int count, char **words) {
    check(count == 3);
    for (int i = atoi(words[1]); i > 0; i--) {
        void *handle = dlopen(words[2], RTLD_NOW);
        check(handle != 0);
        check(dlclose(handle) == 0);
    }
    return 0;
}
