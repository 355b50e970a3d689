// Whether machine code fits this processor.
#pragma once

#include <string>
#include <vector>

namespace gatedeploy {

/// Throws InputError unless this is the machine `targets` begins with and it has the instructions that follow, as far
/// as can be told: {"x86_64", "avx512", "avx512_vnni"}. Code for another one would end the process.
void check_targets(const std::vector<std::string>& targets);

}  // namespace gatedeploy
