// Objects of C++ to which only such a pointer leads as the first argument names; with "lose" it is cleared.
#include "test.h"
#include <exception>
#include <memory>
#include <new>
#include <string>

static int lost;
static void *volatile global;

// Elements with a destructor: their number stands before the first, and it is that one which the program has.
struct Element {
    char bytes[3];
    ~Element() { bytes[0] = 1; }
};
static NOINLINE void new_array() { global = new Element[443]; }
static NOINLINE void new_empty_array() {
    volatile size_t none = 0;
    global = new Element[none];
}
static NOINLINE void new_plain_array() { global = new char[1337]; }
static NOINLINE void new_plain_empty_array() {
    volatile size_t none = 0;
    global = new char[none];
}
// The last of three bases, of which each has a table.
struct First {
    virtual ~First() {}
    long a = 0;
};
struct Second {
    virtual ~Second() {}
    long b = 0;
};
struct Third {
    virtual ~Third() {}
    long c = 0;
};
struct All : First, Second, Third {
    char more[1280];
};
static NOINLINE void new_second_base() { global = static_cast<Second *>(new All); }
static NOINLINE void new_third_base() { global = static_cast<Third *>(new All); }
// A base that lies behind all other members.
struct Shared : virtual Second {
    char more[1288];
};
static NOINLINE void new_virtual_base() { global = static_cast<Second *>(new Shared); }
static NOINLINE void new_member() { global = &(new All)->more[700]; }

// In memory that is nobody's but theirs: a pointer to the counts, one to the object behind them.
static char room[64] __attribute__((aligned(16)));
struct Payload {
    char bytes[1320];
};
static NOINLINE void make_shared() { new (room) std::shared_ptr<Payload>(std::make_shared<Payload>()); }
static NOINLINE void make_shared_for_object() {
    new (room) std::shared_ptr<Payload>(std::make_shared<Payload>());
    // As an intrusive pointer has it: the object alone.
    global = *(void **)room;
    memset(room, 0, sizeof room);
}
static NOINLINE void make_weak() {
    auto shared = std::make_shared<Payload>();
    new (room) std::weak_ptr<Payload>(shared);
}
static NOINLINE void make_unique() { new (room) std::unique_ptr<Payload>(new Payload); }
static NOINLINE void make_string() { new (room) std::string(1336, 'x'); }
struct Thrown {
    char bytes[1209];
};
static NOINLINE void make_exception() {
    try {
        throw Thrown();
    } catch (...) {
        new (room) std::exception_ptr(std::current_exception());
    }
}

static const struct {
    const char *name;
    void (*make)();
} kinds[] = {
    {"array", new_array},
    {"empty_array", new_empty_array},
    {"plain_array", new_plain_array},
    {"plain_empty_array", new_plain_empty_array},
    {"second_base", new_second_base},
    {"third_base", new_third_base},
    {"virtual_base", new_virtual_base},
    {"member", new_member},
    {"shared_pointer", make_shared},
    {"shared_object", make_shared_for_object},
    {"weak_pointer", make_weak},
    {"unique_pointer", make_unique},
    {"string", make_string},
    {"exception_pointer", make_exception},
};

// One that is being handled, of which libstdc++ keeps the only pointer.
static NOINLINE void throw_it() { throw Thrown(); }
static void handle() {
    try {
        below(throw_it);
    } catch (...) {
        scan();
        scan();
        exit(0);
    }
}

int main(int count, char **words) {
    check(count == 3);
    lost = is(words[2], "lose");
    if (is(words[1], "handled")) handle();
    for (const auto &kind : kinds) {
        if (!is(words[1], kind.name)) continue;
        below(kind.make);
        if (lost) {
            global = nullptr;
            memset(room, 0, sizeof room);
        }
        scan();
        scan();
        exit(0);
    }
    return 96;
}
