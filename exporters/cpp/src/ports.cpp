#include "ports.hpp"

#include "gatedeploy/errors.hpp"
#include "text.hpp"

namespace gatedeploy {
namespace {

bool agrees(const std::vector<std::int64_t>& got, const std::vector<std::int64_t>& said, Batches batches) {
    if (got.size() != said.size()) return false;
    for (std::size_t axis = 0; axis < got.size(); ++axis) {
        const bool batch = said[axis] == kBatch && got[axis] >= batches.min && got[axis] <= batches.max;
        if (got[axis] != said[axis] && !batch) return false;
    }
    return true;
}

void check_port(const Port& port, DType dtype, const std::vector<std::int64_t>& shape, Batches batches) {
    if (port.dtype == name_of(dtype) && agrees(port.shape, shape, batches)) return;
    throw CheckError(in_quotes(port.name) + " is " + port.dtype + " " + shape_text(port.shape) +
                     "; its manifest says " + name_of(dtype) + " " + shape_text(shape));
}

template <class Named>
std::vector<std::string> names_of(const std::vector<Named>& all) {
    std::vector<std::string> names;
    for (const Named& each : all) names.push_back(each.name);
    return names;
}

}  // namespace

void check_ports(const Manifest& manifest, Batches batches, const std::vector<Port>& inputs,
                 const std::vector<Port>& outputs) {
    const InputSpec& image = manifest.input;
    const std::vector<std::string> said = names_of(manifest.outputs);
    if (names_of(inputs) != std::vector<std::string>{image.name} || names_of(outputs) != said) {
        throw CheckError("takes " + joined(names_of(inputs)) + " and returns " + joined(names_of(outputs)) +
                         "; its manifest says " + image.name + " and " + joined(said));
    }
    check_port(inputs[0], DType::float32, {kBatch, image.channels, image.height, image.width}, batches);
    for (std::size_t position = 0; position < outputs.size(); ++position) {
        const OutputSpec& spec = manifest.outputs[position];
        check_port(outputs[position], spec.dtype, spec.shape, batches);
    }
}

void check_shape(const Tensor& expected, const std::vector<std::int64_t>& got) {
    if (got == expected.shape) return;
    throw CheckError("output " + in_quotes(expected.name) + ": expected the shape " + shape_text(expected.shape) +
                     ", got " + shape_text(got));
}

}  // namespace gatedeploy
