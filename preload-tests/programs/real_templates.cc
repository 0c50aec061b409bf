// Heavy for a compiler: parameter packs, recursion, and much of the library.
#include <algorithm>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <regex>
#include <string>
#include <tuple>
#include <unordered_map>
#include <variant>
#include <vector>

template <int N> struct Fib { static constexpr long value = Fib<N - 1>::value + Fib<N - 2>::value; };
template <> struct Fib<0> { static constexpr long value = 0; };
template <> struct Fib<1> { static constexpr long value = 1; };
template <class... T> struct Sum { static constexpr std::size_t value = (sizeof(T) + ... + 0); };
template <std::size_t... I> auto squares(std::index_sequence<I...>) { return std::make_tuple((I * I)...); }
int main() {
    std::map<std::string, std::vector<std::shared_ptr<std::variant<int, double, std::string>>>> map;
    map["a"].push_back(std::make_shared<std::variant<int, double, std::string>>(3));
    std::unordered_map<std::string, std::function<int(int)>> f{{"x", [](int a) { return a + 1; }}};
    std::regex r("([a-z]+)([0-9]*)");
    std::smatch m; std::string s = "abc123";
    std::regex_match(s, m, r);
    auto t = squares(std::make_index_sequence<200>());
    std::cout << Fib<80>::value << Sum<int, long, char>::value << std::get<199>(t) << f["x"](1) << m.size() << map.size() << "\n";
}
