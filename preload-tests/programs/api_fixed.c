// flags: -no-pie -fno-pie
// The same in a program at a fixed address.
#include "api.c"
