// flags: -shared -fPIC
// Operators new for alignments as libstdc++ has them since gcc 13: by posix_memalign, and the nothrow form by the other one.
#include <cstdlib>
#include <new>

void *operator new(size_t size, std::align_val_t alignment) {
    void *block;
    while (posix_memalign(&block, (size_t)alignment, size) != 0) {
        std::new_handler handler = std::get_new_handler();
        if (!handler) throw std::bad_alloc();
        handler();
    }
    return block;
}
void *operator new(size_t size, std::align_val_t alignment, const std::nothrow_t &) noexcept {
    try {
        return operator new(size, alignment);
    } catch (...) {
        return nullptr;
    }
}
