// Loses and keeps many blocks: 40,000 of 1,000 bytes here and 4,000 of 10,000 bytes there. With the word "live", few at a time, and
// scans in between.
#include "test.h"
static NOINLINE void lose_small(void) {
    for (int i = 0; i < 40000; i++) memset(malloc(1000), 0, 1000);
}
static NOINLINE void lose_large(void) {
    for (int i = 0; i < 4000; i++) memset(malloc(10000), 0, 10000);
}
static void *volatile kept[1000];
static NOINLINE void keep(void) {
    for (int i = 0; i < 1000; i++) kept[i] = calloc(1, 500);
}
static NOINLINE void churn(void) {
    for (int i = 0; i < 100000; i++) free(malloc((size_t)i % 3000));
}
static NOINLINE void lose_odd(void) {
    for (int i = 0; i < 50; i++) memset(malloc(777), 0, 777);
}
static NOINLINE void lose_other(void) {
    for (int i = 0; i < 50; i++) memset(malloc(555), 0, 555);
}
static int live(void) {
    below(lose_odd);
    scan();
    below(lose_odd);
    below(lose_other);
    scan();
    below(lose_odd);
    return 0;
}
int main(int count, char **words) {
    (void)words;
    if (count > 1) return live();
    below(churn);
    below(lose_small);
    below(churn);
    below(lose_large);
    below(keep);
    below(churn);
    return 0;
}
