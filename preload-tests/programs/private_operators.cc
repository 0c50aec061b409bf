// flags: -shared -fPIC -O2 -Wl,-Bsymbolic
// A library that calls operators of its own, as one with the C++ runtime inside does; deletes by a jump to free.
#include <cstdlib>
#include <new>

void *operator new(size_t size) {
    void *block = malloc(size);
    if (!block) throw std::bad_alloc();
    return block;
}
void *operator new[](size_t size) {
    void *block = malloc(size);
    if (!block) throw std::bad_alloc();
    return block;
}
void operator delete(void *block) noexcept { free(block); }
void operator delete(void *block, size_t) noexcept { free(block); }
void operator delete[](void *block) noexcept { free(block); }

extern "C" {
int *object_of_library() { return new int; }
int *array_of_library() { return new int[10]; }
void library_deletes(int *object) { delete object; asm volatile(""); }
}
