// flags: -shared -fPIC
// An allocator that tells nobody how large its blocks are, and takes none back.
#include <stddef.h>
#include <string.h>

static char room[64 << 20] __attribute__((aligned(4096)));
static size_t used;

static void *take(size_t align, size_t size) {
    size_t start = __sync_fetch_and_add(&used, size + align + 32) + 16;
    start = (start + align - 1) / align * align;
    *(size_t *)(room + start - 16) = size;
    return room + start;
}
void *malloc(size_t size) { return take(16, size); }
void free(void *block) { (void)block; }
void *calloc(size_t count, size_t size) { return memset(malloc(count * size), 0, count * size); }
void *realloc(void *old, size_t size) {
    if (!old) return malloc(size);
    size_t before = *(size_t *)((char *)old - 16);
    return size <= before ? old : memcpy(malloc(size), old, before);
}
void *memalign(size_t align, size_t size) { return take(align < 16 ? 16 : align, size); }
void *aligned_alloc(size_t align, size_t size) { return memalign(align, size); }
int posix_memalign(void **out, size_t align, size_t size) { return *out = memalign(align, size), 0; }
