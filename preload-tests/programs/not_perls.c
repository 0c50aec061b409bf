#include "perls.h"
