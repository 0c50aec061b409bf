// C++ containers, most of whose time goes to new and delete: containers ROUNDS. Prints a sum that must be the same under every tool.
// It is also what the compiler is measured on.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

int main(int argc, char **argv)
{
    size_t total = 0;
    for (int rounds = argc > 1 ? atoi(argv[1]) : 30; rounds > 0; rounds--) {
        std::map<int, std::string> ordered;
        std::unordered_map<std::string, std::shared_ptr<int>> hashed;
        std::vector<std::unique_ptr<int>> owned;
        for (int i = 0; i < 20000; i++) {
            ordered[i * 7919 % 20011] = "a string that is longer than the small buffer " + std::to_string(i);
            hashed["key of some length " + std::to_string(i % 5000)] = std::make_shared<int>(i);
            owned.push_back(std::make_unique<int>(i));
        }
        std::sort(owned.begin(), owned.end(), [](auto &a, auto &b) { return *a % 100 < *b % 100; });
        total += ordered.size() + hashed.size() + owned.size() + ordered.begin()->second.size();
    }
    printf("%zu\n", total);
    return 0;
}
