// What libstdc++ keeps for itself: nothing of it may be reported. argv[1] names what the program uses.
#include "case.h"
#include <future>
#include <iostream>
#include <locale>
#include <random>
#include <regex>
#include <string>
#include <thread>

static char room[64] __attribute__((aligned(16)));
static NOINLINE void stream_now(void) { std::cout << 3.5 << std::string(100, 'x') << std::endl; }
static void stream(void) { below(stream_now); }
static NOINLINE void locale_now(void) {
    std::locale::global(std::locale("C.UTF-8"));
    std::cout.imbue(std::locale());
    std::cout << 1234567 << std::endl;
}
static void locale(void) { below(locale_now); }
static NOINLINE void exception_now(void) {
    for (int i = 0; i < 3; i++) {
        try {
            throw std::string(100, 'x');
        } catch (const std::string &) {
        }
    }
}
static void exception(void) { below(exception_now); }
static NOINLINE void thread_now(void) {
    std::string text(100, 'x');
    new (room) std::thread([text] { park(); });
    wait_ready();
}
static void thread(void) { below(thread_now); }
static NOINLINE void async_now(void) {
    new (room) std::future<int>(std::async(std::launch::async, [] {
        park();
        return 1;
    }));
    wait_ready();
}
static void async(void) { below(async_now); }
static NOINLINE void call_local(void) {
    thread_local std::string local(100, 'x');
    local += "y";
}
static NOINLINE void local_now(void) {
    call_local();
    std::thread(call_local).join();
}
static void local(void) { below(local_now); }
static NOINLINE void regex_now(void) {
    static std::regex pattern("^(a|b)*c+$");
    check(std::regex_match("abc", pattern));
}
static void regex(void) { below(regex_now); }

static const struct choice own[] = {
    {"cxx_stream", stream}, {"cxx_locale", locale}, {"cxx_exception", exception}, {"cxx_thread", thread},
    {"cxx_async", async},   {"cxx_local", local},   {"cxx_regex", regex},
};
MAIN_ENDS(own)
