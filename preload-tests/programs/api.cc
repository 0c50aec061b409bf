// The same in C++.
#include "api.c"
