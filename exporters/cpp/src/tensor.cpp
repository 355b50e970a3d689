#include "gatedeploy/tensor.hpp"

#include <algorithm>

#include "gatedeploy/errors.hpp"
#include "text.hpp"

namespace gatedeploy {

const char* name_of(DType dtype) {
    constexpr const char* kNames[] = {"bool", "uint8", "int8", "int32", "int64", "float16", "float32", "float64"};
    return kNames[static_cast<std::size_t>(dtype)];
}

std::size_t size_of(DType dtype) {
    constexpr std::size_t kSizes[] = {1, 1, 1, 4, 8, 2, 4, 8};
    return kSizes[static_cast<std::size_t>(dtype)];
}

std::size_t OutputSpec::values(std::int64_t batch) const {
    std::size_t result = 1;
    for (std::int64_t size : shape) result *= static_cast<std::size_t>(size == kBatch ? batch : size);
    return result;
}

void Tensor::check_type(DType asked) const {
    if (asked == dtype) return;
    throw InputError("output " + in_quotes(name) + " holds " + name_of(dtype) + ", not " + name_of(asked));
}

const Tensor& Outputs::operator[](std::string_view name) const {
    const Tensor* found = nullptr;
    std::vector<std::string> names, several;
    for (const Tensor& tensor : tensors_) {
        if (tensor.name == name) return tensor;
        if (tensor.task == name) {
            if (found) several = {found->name};
            found = &tensor;
        }
    }
    if (found && several.empty()) return *found;
    several.clear();
    for (const Tensor& tensor : tensors_) (tensor.task == name ? several : names).push_back(tensor.name);
    if (found) {
        throw InputError("task " + in_quotes(name) + " has several outputs: ask for one of " + joined(several));
    }
    throw InputError("there is no output " + in_quotes(name) + "; this network returns " + joined(names));
}

std::vector<Tensor>& Outputs::fit(const std::vector<OutputSpec>& specs, std::int64_t batch) {
    tensors_.resize(specs.size());
    for (std::size_t position = 0; position < specs.size(); ++position) {
        const OutputSpec& spec = specs[position];
        Tensor& tensor = tensors_[position];
        tensor.name = spec.name;
        tensor.task = spec.task;
        tensor.dtype = spec.dtype;
        tensor.shape = spec.shape;
        std::replace(tensor.shape.begin(), tensor.shape.end(), kBatch, batch);
        tensor.bytes.resize(spec.values(batch) * size_of(spec.dtype));
    }
    return tensors_;
}

}  // namespace gatedeploy
