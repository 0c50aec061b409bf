// Pointers that C++ makes: argv[1] names the kind, argv[2] says kept or lost.
#include "case.h"
#include <cxxabi.h>
#include <exception>
#include <memory>
#include <new>
#include <string>

static Slot global;
static void clear_if_lost(void) {
    if (lost) global = 0;
}

// An array whose elements have a destructor: its length stands before the first.
struct Element {
    char bytes[3];
    ~Element() { bytes[0] = 1; }
};
static NOINLINE void new_array(void) { global = new Element[443]; }
static void array(void) {
    below(new_array);
    clear_if_lost();
}
static NOINLINE void new_empty_array(void) {
    volatile size_t none = 0;
    global = new Element[none];
}
static void empty_array(void) {
    below(new_empty_array);
    clear_if_lost();
}
// The second of two bases.
struct First {
    virtual ~First() {}
    long a = 0;
};
struct Second {
    virtual ~Second() {}
    long b = 0;
};
struct Both : First, Second {
    char more[1000];
};
static NOINLINE void new_both(void) {
    Second *second = new (make()) Both;
    global = second;
}
static void second_base(void) {
    below(new_both);
    clear_if_lost();
}
static std::string *text;
static char room[sizeof(std::string)] __attribute__((aligned(16)));
static NOINLINE void new_string(void) { text = new (room) std::string(1336, 'x'); }
static void string(void) {
    below(new_string);
    if (lost) memset(room, 0, sizeof room);
}
// The string of before C++11: length and count stand before the text.
static NOINLINE void new_old_string(void) {
    struct {
        size_t length, capacity;
        long count;
    } head = {1312, 1312, 0};
    char *block = (char *)operator new(1337);
    memcpy(block, &head, sizeof head);
    memset(block + sizeof head, 'x', 1312);
    block[1336] = 0;
    global = block + sizeof head;
}
static void old_string(void) {
    below(new_old_string);
    clear_if_lost();
}
static NOINLINE void new_shared(void) {
    struct Payload {
        char bytes[1320];
    };
    auto shared = std::make_shared<Payload>();
    // As an intrusive count would: who holds the object finds the count before it.
    global = shared.get();
    new (room) std::shared_ptr<Payload>(shared);
    memset(room, 0, 16);
}
static void object_of_make_shared(void) {
    below(new_shared);
    clear_if_lost();
}
// An exception: its header stands before the object.
struct Thrown {
    char bytes[1209];
};
static NOINLINE void throw_and_hold(void) {
    try {
        throw Thrown();
    } catch (...) {
        auto *held = new (room) std::exception_ptr(std::current_exception());
        (void)held;
    }
}
static void exception_pointer(void) {
    below(throw_and_hold);
    if (lost) memset(room, 0, sizeof room);
}
static NOINLINE void throw_it(void) { throw Thrown(); }
static void caught_exception(void) {
    try {
        below(throw_it);
    } catch (...) {
        // Lost: as if libstdc++ had forgotten it.
        if (lost) *(void **)__cxxabiv1::__cxa_get_globals() = 0;
        look();
    }
}

static const struct choice kinds[] = {
    {"array", array},
    {"empty_array", empty_array},
    {"second_base", second_base},
    {"string", string},
    {"old_string", old_string},
    {"object_of_make_shared", object_of_make_shared},
    {"exception_pointer", exception_pointer},
    {"caught_exception", caught_exception},
};
MAIN_LOOKS(kinds)
