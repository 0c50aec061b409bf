// flags: -fopenmp
// Threads of libgomp.
#include "test.h"
#include <stdio.h>
int main(void) {
    long sum = 0;
#pragma omp parallel for num_threads(4) reduction(+ : sum)
    for (int i = 0; i < 20000; i++) {
        char *block = malloc((size_t)i % 500 + 1);
        block[0] = (char)i;
        sum += block[0];
        free(block);
        if (i % 5000 == 0) LEAKSCAN_SCAN();
    }
    printf("%ld\n", sum);
    return 0;
}
