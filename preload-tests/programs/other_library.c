// flags: -shared -fPIC
// Another library in LD_PRELOAD, which must stay there.
int other_library(void) { return 1; }
