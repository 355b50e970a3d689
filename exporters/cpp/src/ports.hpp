// Whether a network is the one that its manifest describes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "gatedeploy/bundle.hpp"

namespace gatedeploy {

/// An input or an output, as a runtime describes it; -1 stands for a size that is free.
struct Port {
    std::string name;
    std::string dtype;
    std::vector<std::int64_t> shape;
};

/// Throws CheckError where names, types or shapes differ. The batch may be free or one that `batches` allows.
void check_ports(const Manifest& manifest, Batches batches, const std::vector<Port>& inputs,
                 const std::vector<Port>& outputs);

/// Throws CheckError where an output that was just computed has another shape than was announced.
void check_shape(const Tensor& expected, const std::vector<std::int64_t>& got);

}  // namespace gatedeploy
