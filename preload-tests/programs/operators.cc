// Makes a block by the form of operator new that the first argument names, and loses, keeps or deletes it.
#include "test.h"
#include <cstdint>
#include <cstdio>
#include <map>
#include <new>
#include <stdexcept>
#include <string>
#include <sys/resource.h>
#include <vector>

struct Big {
    char bytes[1337];
};
struct alignas(64) Aligned {
    char bytes[1344];
};
struct Throws {
    char bytes[1337];
    Throws() { throw std::runtime_error("a constructor throws: what new has taken is given back"); }
};

template <class T> static T *aligned(T *block) {
    check((uintptr_t)block % 64 == 0);
    return block;
}

static NOINLINE void *plain() { return new Big; }
static NOINLINE void *array() { return new char[1337]; }
static NOINLINE void *nothrow() { return new (std::nothrow) Big; }
static NOINLINE void *array_nothrow() { return new (std::nothrow) char[1337]; }
static NOINLINE void *over_aligned() { return aligned(new Aligned); }
static NOINLINE void *array_over_aligned() { return aligned(new Aligned[1]); }
static NOINLINE void *over_aligned_nothrow() { return aligned(new (std::nothrow) Aligned); }
static NOINLINE void *array_over_aligned_nothrow() { return aligned(new (std::nothrow) Aligned[1]); }
static NOINLINE void *direct_call() { return ::operator new(1337); }
static NOINLINE void *direct_aligned_call() { return aligned(::operator new(1337, std::align_val_t(64))); }

// There is no memory at first; the handler makes some.
static struct rlimit limit;
static void make_room() { check(setrlimit(RLIMIT_AS, &limit) == 0); }
static NOINLINE void *second_try() {
    check(getrlimit(RLIMIT_AS, &limit) == 0);
    struct rlimit small = {1, limit.rlim_max};
    check(setrlimit(RLIMIT_AS, &small) == 0);
    std::set_new_handler(make_room);
    // (Of a block of 64 MiB a word that ld.so has left on the stack was an address, once in a hundred runs.)
    void *block = new char[1 << 20];
    // One that libc has had back it gives again without asking.
    make_room();
    return block;
}

// Every form of operator delete, called as a compiler calls it.
static void delete_plain(void *block) { ::operator delete(block); }
static void delete_sized(void *block) { ::operator delete(block, (size_t)1337); }
static void delete_nothrow(void *block) { ::operator delete(block, std::nothrow); }
static void delete_array(void *block) { ::operator delete[](block); }
static void delete_array_sized(void *block) { ::operator delete[](block, (size_t)1337); }
static void delete_array_nothrow(void *block) { ::operator delete[](block, std::nothrow); }
static void delete_aligned(void *block) { ::operator delete(block, std::align_val_t(64)); }
static void delete_aligned_sized(void *block) { ::operator delete(block, (size_t)1344, std::align_val_t(64)); }
static void delete_aligned_nothrow(void *block) { ::operator delete(block, std::align_val_t(64), std::nothrow); }
static void delete_array_aligned(void *block) { ::operator delete[](block, std::align_val_t(64)); }
static void delete_array_aligned_sized(void *block) { ::operator delete[](block, (size_t)1344, std::align_val_t(64)); }
static void delete_array_aligned_nothrow(void *block) { ::operator delete[](block, std::align_val_t(64), std::nothrow); }

static const struct {
    const char *name;
    void *(*make)();
    void (*destroy[3])(void *);
} forms[] = {
    {"plain", plain, {delete_plain, delete_sized, delete_nothrow}},
    {"array", array, {delete_array, delete_array_sized, delete_array_nothrow}},
    {"nothrow", nothrow, {delete_plain, delete_sized, delete_nothrow}},
    {"array_nothrow", array_nothrow, {delete_array, delete_array_sized, delete_array_nothrow}},
    {"over_aligned", over_aligned, {delete_aligned, delete_aligned_sized, delete_aligned_nothrow}},
    {"array_over_aligned",
     array_over_aligned,
     {delete_array_aligned, delete_array_aligned_sized, delete_array_aligned_nothrow}},
    {"over_aligned_nothrow", over_aligned_nothrow, {delete_aligned, delete_aligned_sized, delete_aligned_nothrow}},
    {"array_over_aligned_nothrow",
     array_over_aligned_nothrow,
     {delete_array_aligned, delete_array_aligned_sized, delete_array_aligned_nothrow}},
    {"second_try", second_try, {delete_array, delete_array_sized, delete_array_nothrow}},
    {"direct_call", direct_call, {delete_plain, delete_sized, delete_nothrow}},
    {"direct_aligned_call", direct_aligned_call, {delete_aligned, delete_aligned_sized, delete_aligned_nothrow}},
};

static void *(*make)();
static void (*const *destroy)(void *);
static void *volatile kept;
static NOINLINE void lose() { check(make() != nullptr); }
static NOINLINE void keep() { kept = make(); }
static NOINLINE void make_and_delete() {
    for (int i = 0; i < 3; i++) destroy[i](make());
}

static int handled;
static char *volatile reserve;
static void handler() {
    handled++;
    if (handled == 3) std::set_new_handler(nullptr);
}
static size_t volatile too_much = PTRDIFF_MAX - 100;
static NOINLINE void failures() {
    std::set_new_handler(handler);
    bool caught = false;
    try {
        reserve = new char[too_much];
    } catch (const std::bad_alloc &) {
        caught = true;
    }
    check(caught && handled == 3);
    check(new (std::nothrow) char[too_much] == nullptr);
    handled = 0;
    std::set_new_handler(handler);
    check(::operator new(too_much, std::align_val_t(64), std::nothrow) == nullptr && handled == 3);
    caught = false;
    try {
        new Throws;
    } catch (const std::runtime_error &) {
        caught = true;
    }
    check(caught);
}

static NOINLINE void containers() {
    std::map<std::string, std::vector<int>> map;
    for (int i = 0; i < 500; i++) map["a key that is longer than a small string: " + std::to_string(i)].resize(i);
    map.erase("a key that is longer than a small string: 17");
    kept = new std::map<std::string, std::vector<int>>(map);
    for (int i = 0; i < 200; i++) {
        try {
            throw std::string(300, 'x');
        } catch (const std::string &) {
        }
    }
}

static NOINLINE std::string *text() { return new std::string(1336, 'x'); }
static NOINLINE void lose_string() { check(text() != nullptr); }

// One block of each kind, given back by another function than its own.
static NOINLINE void mismatches() {
    delete_plain(array());
    delete_array(plain());
    delete_plain(malloc(10));
    delete_aligned(malloc(10));
    free(plain());
    delete_plain(plain());
    delete_array(array());
}

int main(int, char **words) {
    if (is(words[1], "failures")) below(failures);
    if (is(words[1], "containers")) below(containers);
    if (is(words[1], "string")) below(lose_string);
    if (is(words[1], "mismatches")) below(mismatches);
    for (const auto &form : forms) {
        if (!is(words[1], form.name)) continue;
        make = form.make;
        destroy = form.destroy;
        below(is(words[2], "keep") ? keep : is(words[2], "delete") ? make_and_delete : lose);
    }
}
