#include "processor.hpp"

#include "gatedeploy/errors.hpp"
#include "text.hpp"

namespace gatedeploy {
namespace {

#if defined(__x86_64__) || defined(_M_X64)
constexpr const char* kMachine = "x86_64";
#elif defined(__aarch64__)
constexpr const char* kMachine = "aarch64";
#else
constexpr const char* kMachine = "another machine";
#endif

bool has(const std::string& instructions) {
#if defined(__x86_64__) && defined(__GNUC__)
    if (instructions == "avx2") return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (instructions == "avx512") return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw");
    if (instructions == "avx512_vnni") return __builtin_cpu_supports("avx512vnni");
#if __GNUC__ >= 12 && !defined(__clang__)
    if (instructions == "amx_tile") return __builtin_cpu_supports("amx-tile");
#endif
#endif
    static_cast<void>(instructions);
    return true;  // nobody to ask
}

}  // namespace

void check_targets(const std::vector<std::string>& targets) {
    if (targets.empty()) return;
    const std::vector<std::string> needed(targets.begin() + 1, targets.end());
    std::vector<std::string> missing;
    for (const std::string& instructions : needed) {
        if (!has(instructions)) missing.push_back(instructions);
    }
    const bool other = targets[0] != kMachine;
    if (!other && missing.empty()) return;
    throw InputError("was compiled for " + shown(targets[0]) + (needed.empty() ? "" : " with ") + joined(needed) +
                     "; this machine is " + (other ? std::string(kMachine) : "without " + joined(missing)) +
                     ": export on a machine like it");
}

}  // namespace gatedeploy
