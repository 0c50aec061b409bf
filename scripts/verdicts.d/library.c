// Built with -DPLACE(name)=linked_##name or loaded_##name.
// Places in a library: linked into the cases, and another copy loaded by dlopen.
static void *volatile in_data = (void *)8, *volatile in_bss;
static __thread void *volatile in_tls[300];

void *volatile *PLACE(data)(void) { return &in_data; }
void *volatile *PLACE(bss)(void) { return &in_bss; }
void *volatile *PLACE(tls)(void) { return &in_tls[200]; }
