// As much of a test framework as these tests need.
#pragma once

#include <cmath>
#include <stdexcept>
#include <string>
#include <vector>

struct Test {
    const char* name;
    void (*run)();
};

/// All tests of this program, in no particular order.
std::vector<Test>& all_tests();

inline bool enter(const char* name, void (*run)()) {
    all_tests().push_back({name, run});
    return true;
}

struct Failure : std::runtime_error {
    using std::runtime_error::runtime_error;
};

/// What a test throws that cannot be run here.
struct Skipped : std::runtime_error {
    using std::runtime_error::runtime_error;
};

[[noreturn]] inline void fail(const char* file, int line, const std::string& what) {
    throw Failure(std::string(file) + ":" + std::to_string(line) + ": " + what);
}

#define TEST(name)                                                          \
    static void name();                                                     \
    [[maybe_unused]] static const bool name##_entered = enter(#name, name); \
    static void name()

#define CHECK(condition)                                        \
    do {                                                        \
        if (!(condition)) fail(__FILE__, __LINE__, #condition); \
    } while (false)

/// Throws unless `expression` throws a `Type` whose message contains `words`.
#define CHECK_THROWS(Type, words, expression)                                                                  \
    do {                                                                                                       \
        std::string said_ = "nothing";                                                                         \
        bool thrown_ = false;                                                                                  \
        try {                                                                                                  \
            static_cast<void>(expression);                                                                     \
        } catch (const Type& error_) {                                                                         \
            said_ = error_.what();                                                                             \
            thrown_ = said_.find(words) != std::string::npos;                                                  \
        } catch (const std::exception& error_) {                                                               \
            said_ = std::string("an exception of another type: ") + error_.what();                             \
        }                                                                                                      \
        if (!thrown_)                                                                                          \
            fail(__FILE__, __LINE__, std::string("expected " #Type " with «") + (words) + "», got: " + said_); \
    } while (false)
