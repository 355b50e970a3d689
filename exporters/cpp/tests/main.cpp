// Runs the tests whose names contain the first argument, all without one. Returns 77 where all were skipped.
#include <cstdio>
#include <cstring>

#include "check.hpp"

std::vector<Test>& all_tests() {
    static std::vector<Test> tests;
    return tests;
}

int main(int count, char** words) {
    int passed = 0, failed = 0, skipped = 0;
    for (const Test& test : all_tests()) {
        if (count > 1 && !std::strstr(test.name, words[1])) continue;
        try {
            test.run();
            ++passed;
        } catch (const Skipped& reason) {
            std::printf("skipped %s: %s\n", test.name, reason.what());
            ++skipped;
        } catch (const std::exception& error) {
            std::printf("FAILED %s: %s\n", test.name, error.what());
            ++failed;
        }
    }
    std::printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped);
    if (failed > 0 || passed + skipped == 0) return 1;
    return passed == 0 ? 77 : 0;
}
