// What a network returns.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace gatedeploy {

/// The type of one value.
enum class DType { boolean, uint8, int8, int32, int64, float16, float32, float64 };

/// numpy's name of the type, e.g. "float32".
const char* name_of(DType dtype);

/// How many bytes one value takes.
std::size_t size_of(DType dtype);

template <class T>
constexpr DType dtype_of();
template <>
constexpr DType dtype_of<bool>() {
    return DType::boolean;
}
template <>
constexpr DType dtype_of<std::uint8_t>() {
    return DType::uint8;
}
template <>
constexpr DType dtype_of<std::int8_t>() {
    return DType::int8;
}
template <>
constexpr DType dtype_of<std::int32_t>() {
    return DType::int32;
}
template <>
constexpr DType dtype_of<std::int64_t>() {
    return DType::int64;
}
template <>
constexpr DType dtype_of<float>() {
    return DType::float32;
}
template <>
constexpr DType dtype_of<double>() {
    return DType::float64;
}

/// The batch size, which is free, as it stands in the shapes of a manifest.
constexpr std::int64_t kBatch = -1;

/// An output as the manifest describes it.
struct OutputSpec {
    std::string name;  ///< a task's name, or `task_0`, `task_1`, … where a task has several outputs
    std::string task;  ///< the task that it answers
    DType dtype = DType::float32;
    std::vector<std::int64_t> shape;  ///< kBatch where the batch size stands, e.g. {kBatch, 3, 128, 128}

    /// How many values an answer to `batch` pictures has.
    std::size_t values(std::int64_t batch) const;
};

/// One output of one call, with its values.
struct Tensor {
    std::string name;  ///< of the output
    std::string task;  ///< the task that it answers
    DType dtype = DType::float32;
    std::vector<std::int64_t> shape;  ///< e.g. {1, 3, 128, 128}: batch, channels, height, width
    std::vector<std::byte> bytes;     ///< the values, the last axis first in memory (C order)

    /// How many values there are.
    std::size_t values() const { return bytes.size() / size_of(dtype); }

    /// The values, `values()` of them. Throws InputError where T is not `dtype`.
    template <class T>
    const T* data() const {
        check_type(dtype_of<T>());
        return reinterpret_cast<const T*>(bytes.data());
    }

private:
    void check_type(DType asked) const;
};

/// The answers to one call of `Engine::infer`. Keep it and pass it again: its memory is used again.
/// One thread at a time; each thread that calls keeps its own.
class Outputs {
public:
    /// By the name of an output, or of a task that has one. Throws InputError where there is none, or several.
    const Tensor& operator[](std::string_view name) const;

    /// All of them, in the order of the manifest.
    const std::vector<Tensor>& all() const& { return tensors_; }

    /// The same of answers that nobody keeps: `for (const Tensor& output : engine.infer(…).all())` is safe.
    std::vector<Tensor> all() && { return std::move(tensors_); }

    /// Makes room for an answer to `batch` pictures; `Engine::infer` does this.
    std::vector<Tensor>& fit(const std::vector<OutputSpec>& specs, std::int64_t batch);

private:
    std::vector<Tensor> tensors_;
};

}  // namespace gatedeploy
