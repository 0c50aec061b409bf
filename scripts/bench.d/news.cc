// operator new and delete pairs: news PAIRS. Keeps 4,096 blocks and replaces one after the other, eight calls deep.
#include <cstdint>
#include <cstdlib>

enum { LIVE = 4096 };
static void *live[LIVE];

static __attribute__((noinline)) void *deep(size_t size, int depth)
{
    void *volatile block = depth ? deep(size, depth - 1) : operator new(size);
    return block;
}

int main(int argc, char **argv)
{
    uint64_t random = 0x9e3779b97f4a7c15u;
    for (long pairs = argc > 1 ? atol(argv[1]) : 1000000; pairs > 0; pairs--) {
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        void *&slot = live[random % LIVE];
        operator delete(slot);
        slot = deep(16 + (random >> 32) % 497, 7);
    }
    return 0;
}
