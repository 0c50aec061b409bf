#include "gccs.h"
