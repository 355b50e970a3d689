// What a runtime has to do for us. One source file each: in_<runtime>.cpp.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "gatedeploy/bundle.hpp"
#include "gatedeploy/tensor.hpp"

namespace gatedeploy {

/// What one call needs of a runtime. One thread at a time uses it.
class Request {
public:
    Request() = default;
    Request(const Request&) = delete;
    Request& operator=(const Request&) = delete;
    virtual ~Request() = default;

    /// Computes `batch` pictures, (batch, channels, height, width). Writes every output's values to its `bytes`, which
    /// have the room that its shape and type need. Throws Error where the runtime fails, CheckError where what it
    /// returns is of another shape.
    virtual void run(const float* pictures, std::int64_t batch, std::vector<Tensor>& outputs) = 0;
};

/// A network in a runtime. Requests are made one after the other, and run at once.
class Backend {
public:
    Backend() = default;
    Backend(const Backend&) = delete;
    Backend& operator=(const Backend&) = delete;
    virtual ~Backend() = default;

    virtual std::unique_ptr<Request> request() = 0;
};

/// What a backend opens.
struct Source {
    const Bundle& bundle;
    std::filesystem::path file;
    const EngineSpec* engine;  ///< nullptr where the file is the ONNX file
    int threads;               ///< for one call; 0 leaves it to the runtime

    Batches batches() const { return engine ? engine->batches : Batches{}; }
};

std::unique_ptr<Backend> open_openvino(const Source& source);
std::unique_ptr<Backend> open_onnxruntime(const Source& source);
std::unique_ptr<Backend> open_aoti(const Source& source);
std::unique_ptr<Backend> open_tensorrt(const Source& source);  // also TensorRT for RTX, which has the same interface

}  // namespace gatedeploy
