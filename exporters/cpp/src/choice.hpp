// Which backend runs a bundle.
#pragma once

#include <string>

#include "backend.hpp"
#include "gatedeploy/engine.hpp"

namespace gatedeploy {

/// A backend, and what it opens of a bundle.
struct Choice {
    std::string backend;
    Source source;
    std::unique_ptr<Backend> (*open)(const Source&);
};

/// Throws InputError where the name is unknown, MissingBackendError where it is not in this build.
void check_backend(const std::string& name);

/// Throws InputError where the bundle has nothing for it, or a program that is not trusted.
Choice choose(const Bundle& bundle, const Options& options);

}  // namespace gatedeploy
