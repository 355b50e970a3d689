// Does a network answer here what it answered where it was exported?
#pragma once

#include <map>
#include <string>

#include "gatedeploy/engine.hpp"

namespace gatedeploy {

/// Runs the reference pictures one by one, together, and as few and as many at once as the engine takes.
/// Returns, by output, how far off the numbers are at most, relative to the output's scale.
/// Throws CheckError where that is more than rounding.
std::map<std::string, double> check_reference(const Engine& engine);

}  // namespace gatedeploy
