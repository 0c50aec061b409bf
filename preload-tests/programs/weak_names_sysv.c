// flags: -Wl,--hash-style=sysv
// As old linkers write a file's table of names, which does not tell where those of other files end.
#include "weak_names.c"
