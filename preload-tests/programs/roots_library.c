// flags: -shared -fPIC -nostartfiles -Wl,-z,now
// Places in a library, for roots.c.
#include <stdint.h>
#include <sys/mman.h>

static void *volatile in_data = (void *)8, *volatile in_bss[2048];
static __thread void *volatile in_tls[300];

void *volatile *data(void) { return &in_data; }
void *volatile *bss(void) { return &in_bss[1024]; }
void *volatile *tls(void) { return &in_tls[200]; }

// Nothing of it can be written any more: with its relocations done at once (-z now), all that is not data is read-only from the start,
// and without the compiler's start files nothing has to be written at the end.
extern char _end[] __attribute__((visibility("hidden")));
int seal(void) {
    uintptr_t start = (uintptr_t)&in_data & ~(uintptr_t)4095, end = ((uintptr_t)_end + 4095) & ~(uintptr_t)4095;
    return mprotect((void *)start, end - start, PROT_READ);
}
