// flags: -shared -fPIC
// Takes blocks before anybody else: its constructor runs before leakscan's.
#include <stdlib.h>
#include <string.h>
char *early_small, *early_large, *early_spare;
static __attribute__((constructor)) void early(void) {
    early_small = memset(malloc(100), 1, 100);
    early_large = memset(malloc(300000), 2, 300000);
    early_spare = malloc(500);
}
