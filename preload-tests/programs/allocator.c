// flags: -shared -fPIC -ftls-model=initial-exec
// Another allocator than glibc's, as jemalloc and others are: no header before a block, classes of size, and blocks of 8 bytes
// that lie 8 bytes apart. To be preloaded behind libleakscan.so.
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

// Pages of 64 KiB, each of one class; a table outside them says which.
#define PAGE (64ul << 10)
#define SPACE (4ul << 30)
static const unsigned classes[] = {8, 16, 32, 48, 64, 96, 128, 192, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536};
#define CLASSES (sizeof classes / sizeof *classes)
static char *space;
// The first page stays empty: `space` points to it.
static size_t used = PAGE;
static struct {
    uint32_t size, pages;
} table[SPACE / PAGE];
static void *free_blocks[CLASSES];
// With all bits turned: the end of a page's last block would pass for a pointer to it.
static uintptr_t fresh[CLASSES];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void before_fork(void) { pthread_mutex_lock(&lock); }
static void after_fork(void) { pthread_mutex_unlock(&lock); }
__attribute__((constructor)) static void constructor(void) { pthread_atfork(before_fork, after_fork, after_fork); }

static char *pages(size_t count, size_t align) {
    if (!space) space = mmap(0, SPACE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (align > PAGE) used = ((uintptr_t)space + used + align - 1) / align * align - (uintptr_t)space;
    if (used + count * PAGE > SPACE) return 0;
    char *at = space + used;
    used += count * PAGE;
    return at;
}
static void *take(size_t size, size_t align) {
    if (size == 0) size = 1;
    if (size > SPACE / 2) goto none;
    if (align > 8) size = (size + align - 1) / align * align;
    for (size_t i = 0; i < CLASSES && align <= 4096; i++) {
        if (classes[i] < size || classes[i] % align) continue;
        void *block = free_blocks[i];
        if (block) {
            free_blocks[i] = *(void **)block;
            *(void **)block = 0;
            return block;
        }
        char *next = fresh[i] ? (char *)~fresh[i] : space;
        if (next == space || (size_t)(next - space) % PAGE == 0 || (size_t)(next - space) % PAGE + classes[i] > PAGE) {
            next = pages(1, PAGE);
            if (!next) goto none;
            table[(next - space) / PAGE].size = classes[i];
        }
        block = next;
        fresh[i] = ~(uintptr_t)(next + classes[i]);
        return block;
    }
    size_t count = (size + PAGE - 1) / PAGE;
    char *block = pages(count, align);
    if (!block) goto none;
    table[(block - space) / PAGE].size = 0;
    table[(block - space) / PAGE].pages = (uint32_t)count;
    return block;
none:
    errno = ENOMEM;
    return 0;
}
static size_t size_of(void *block) {
    size_t page = (size_t)((char *)block - space) / PAGE;
    return table[page].size ? table[page].size : table[page].pages * PAGE;
}
static void *locked_take(size_t size, size_t align) {
    pthread_mutex_lock(&lock);
    void *block = take(size, align);
    pthread_mutex_unlock(&lock);
    return block;
}

void *malloc(size_t size) { return locked_take(size, 8); }
// A way of its own, by a name of mimalloc's.
void *mi_malloc(size_t size) { return locked_take(size, 8); }
// As mimalloc has them since its third version: with no call of malloc.
char *strndup(const char *text, size_t most) {
    size_t size = strnlen(text, most);
    char *copy = locked_take(size + 1, 8);
    if (!copy) return 0;
    copy[size] = 0;
    return memcpy(copy, text, size);
}
char *strdup(const char *text) { return strndup(text, strlen(text)); }
void free(void *block) {
    if (!block || (char *)block < space || (char *)block >= space + SPACE) return;
    pthread_mutex_lock(&lock);
    size_t size = size_of(block);
    // What freed blocks of an allocator that we do not know point to may count as reachable; here it is not to.
    memset(block, 0, size);
    for (size_t i = 0; i < CLASSES; i++) {
        if (classes[i] != size || !table[((char *)block - space) / PAGE].size) continue;
        *(void **)block = free_blocks[i];
        free_blocks[i] = block;
    }
    pthread_mutex_unlock(&lock);
}
void *calloc(size_t count, size_t size) {
    size_t total;
    if (__builtin_mul_overflow(count, size, &total)) {
        errno = ENOMEM;
        return 0;
    }
    void *block = malloc(total);
    return block ? memset(block, 0, total) : 0;
}
void *realloc(void *old, size_t size) {
    if (!old) return malloc(size);
    if (size == 0) return free(old), (void *)0;
    size_t before = malloc_usable_size(old);
    if (size <= before && size > before / 2) return old;
    void *block = malloc(size);
    if (block) {
        memcpy(block, old, size < before ? size : before);
        free(old);
    }
    return block;
}
void *reallocarray(void *old, size_t count, size_t size) {
    size_t total;
    if (__builtin_mul_overflow(count, size, &total)) {
        errno = ENOMEM;
        return 0;
    }
    return realloc(old, total);
}
void *aligned_alloc(size_t align, size_t size) { return locked_take(size, align); }
void *memalign(size_t align, size_t size) { return locked_take(size, align); }
int posix_memalign(void **out, size_t align, size_t size) {
    if (align < 8 || align & (align - 1)) return EINVAL;
    int before = errno;
    void *block = locked_take(size, align);
    errno = before;
    if (!block) return ENOMEM;
    *out = block;
    return 0;
}
void *valloc(size_t size) { return locked_take(size, 4096); }
void *pvalloc(size_t size) { return locked_take((size + 4095) & ~4095ul, 4096); }
size_t malloc_usable_size(void *block) { return block ? size_of(block) : 0; }
