// flags: -shared -fPIC
// Places in a library, for roots.c.
static void *volatile in_data = (void *)8, *volatile in_bss;
static __thread void *volatile in_tls[300];

void *volatile *data(void) { return &in_data; }
void *volatile *bss(void) { return &in_bss; }
void *volatile *tls(void) { return &in_tls[200]; }
