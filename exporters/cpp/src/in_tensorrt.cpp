// Engines of TensorRT, and of TensorRT for RTX, which has the same interface, on the first GPU of the process.
#include <NvInfer.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <mutex>

#include "backend.hpp"
#include "gatedeploy/errors.hpp"
#include "ports.hpp"
#include "text.hpp"

namespace gatedeploy {
namespace {

#ifdef GATEDEPLOY_HAS_TENSORRT_RTX
constexpr const char* kName = "tensorrt-rtx";
#else
constexpr const char* kName = "tensorrt";
static_assert(NV_TENSORRT_MAJOR >= 10, "TensorRT 10 or newer is needed");
#endif

/// It tells of errors through a callback and returns nullptr or false; the last one is kept for our message.
class Logger : public nvinfer1::ILogger {
public:
    void log(Severity severity, const char* message) noexcept override {
        if (severity > Severity::kERROR) return;
        try {
            const std::lock_guard<std::mutex> lock(mutex_);
            last_ = message;
        } catch (...) {  // out of memory: then the message is lost, and nothing may leave a callback
        }
    }

    std::string last() {
        const std::lock_guard<std::mutex> lock(mutex_);
        return last_.empty() ? "it does not say why" : last_;
    }

private:
    std::mutex mutex_;
    std::string last_;
};

/// The library takes one logger a process.
Logger& logger() {
    static Logger the_one;
    return the_one;
}

void check_cuda(cudaError_t code, const char* what) {
    if (code != cudaSuccess) {
        throw Error(std::string(kName) + " failed: " + what + ": " + cudaGetErrorString(code));
    }
}

void check_done(bool done, const char* what) {
    if (!done) throw Error(std::string(kName) + " failed: " + what + ": " + logger().last());
}

struct DeviceFree {
    void operator()(void* memory) const { cudaFree(memory); }
};
using DeviceMemory = std::unique_ptr<void, DeviceFree>;

DeviceMemory device_memory(std::size_t bytes) {
    void* memory = nullptr;
    check_cuda(cudaMalloc(&memory, bytes), "memory on the GPU");
    return DeviceMemory(memory);
}

class Stream {
public:
    Stream() { check_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "a stream"); }
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;
    ~Stream() { cudaStreamDestroy(stream_); }

    cudaStream_t get() const { return stream_; }

private:
    cudaStream_t stream_ = nullptr;
};

std::vector<std::int64_t> sizes(const nvinfer1::Dims& dims) { return {dims.d, dims.d + std::max(dims.nbDims, 0)}; }

class TensorRtRequest : public Request {
public:
    TensorRtRequest(nvinfer1::ICudaEngine& engine, const Manifest& manifest)
        : manifest_(manifest), context_(engine.createExecutionContext()) {
        check_done(context_ != nullptr, "a context");
    }

    void run(const float* pictures, std::int64_t batch, std::vector<Tensor>& outputs) override {
        if (batch != batch_) set_batch(batch, outputs);
        const std::size_t bytes = image_bytes(batch);
        const cudaStream_t stream = stream_.get();
        check_cuda(cudaMemcpyAsync(memory_[0].get(), pictures, bytes, cudaMemcpyHostToDevice, stream), "copying");
        check_done(context_->enqueueV3(stream), "running");
        for (std::size_t position = 0; position < outputs.size(); ++position) {
            std::vector<std::byte>& to = outputs[position].bytes;
            const void* from = memory_[position + 1].get();
            check_cuda(cudaMemcpyAsync(to.data(), from, to.size(), cudaMemcpyDeviceToHost, stream), "copying");
        }
        check_cuda(cudaStreamSynchronize(stream), "running");
    }

private:
    std::size_t image_bytes(std::int64_t batch) const {
        return static_cast<std::size_t>(batch) * manifest_.input.values() * sizeof(float);
    }

    void set_batch(std::int64_t batch, const std::vector<Tensor>& outputs) {
        const InputSpec& image = manifest_.input;
        batch_ = 0;  // until it is set
        const nvinfer1::Dims4 shape(batch, image.channels, image.height, image.width);
        check_done(context_->setInputShape(image.name.c_str(), shape), "the batch size");
        for (const Tensor& output : outputs) {
            check_shape(output, sizes(context_->getTensorShape(output.name.c_str())));
        }
        if (batch > room_) {
            memory_.clear();
            place(image.name, image_bytes(batch));
            for (const Tensor& output : outputs) place(output.name, output.bytes.size());
            room_ = batch;
        }
        batch_ = batch;
    }

    void place(const std::string& name, std::size_t bytes) {
        memory_.push_back(device_memory(bytes));
        check_done(context_->setTensorAddress(name.c_str(), memory_.back().get()), "an address");
    }

    const Manifest& manifest_;
    std::unique_ptr<nvinfer1::IExecutionContext> context_;
    std::vector<DeviceMemory> memory_;  // of the picture, then of the outputs
    std::int64_t room_ = 0;             // the batch that it has room for
    Stream stream_;
    std::int64_t batch_ = 0;  // that the context is set for
};

std::string content(const std::filesystem::path& file, std::uint64_t bytes) {
    std::string result(bytes, '\0');
    std::ifstream stream(file, std::ios::binary);
    if (!stream.read(result.data(), static_cast<std::streamsize>(bytes))) throw InputError("cannot be read");
    return result;
}

std::string dtype_of(nvinfer1::DataType type) {
    switch (type) {
        case nvinfer1::DataType::kFLOAT:
            return "float32";
        case nvinfer1::DataType::kHALF:
            return "float16";
        case nvinfer1::DataType::kINT8:
            return "int8";
        case nvinfer1::DataType::kINT32:
            return "int32";
        case nvinfer1::DataType::kINT64:
            return "int64";
        case nvinfer1::DataType::kBOOL:
            return "bool";
        case nvinfer1::DataType::kUINT8:
            return "uint8";
        default:
            return "another type";
    }
}

class TensorRtBackend : public Backend {
public:
    explicit TensorRtBackend(const Source& source)
        : manifest_(source.bundle.manifest), runtime_(nvinfer1::createInferRuntime(logger())) {
        check_done(runtime_ != nullptr, "starting");
        const std::string blob = content(source.file, std::filesystem::file_size(source.file));
        engine_.reset(runtime_->deserializeCudaEngine(blob.data(), blob.size()));
        if (!engine_) {
            throw InputError(std::string(kName) + " cannot load it here: " + logger().last() +
                             "; an engine runs in the version and on the GPUs that it was built for: export it again");
        }
        check_interface(source.batches());
    }

    std::unique_ptr<Request> request() override { return std::make_unique<TensorRtRequest>(*engine_, manifest_); }

private:
    void check_interface(Batches batches) const {
        std::vector<Port> inputs, outputs;
        for (int number = 0; number < engine_->getNbIOTensors(); ++number) {
            const char* name = engine_->getIOTensorName(number);
            const bool taken = engine_->getTensorIOMode(name) == nvinfer1::TensorIOMode::kINPUT;
            (taken ? inputs : outputs)
                .push_back({name, dtype_of(engine_->getTensorDataType(name)), sizes(engine_->getTensorShape(name))});
        }
        check_ports(manifest_, batches, inputs, outputs);
    }

    Manifest manifest_;
    std::unique_ptr<nvinfer1::IRuntime> runtime_;
    std::unique_ptr<nvinfer1::ICudaEngine> engine_;  // after the runtime, which must outlive it
};

void check_gpu() {
    int count = 0;
    const cudaError_t code = cudaGetDeviceCount(&count);
    if (code == cudaSuccess && count > 0) return;
    const std::string why = code == cudaSuccess ? "there is none" : cudaGetErrorString(code);
    throw InputError(std::string(kName) + " runs engines on a GPU, and finds none here (" + why + ")");
}

}  // namespace

std::unique_ptr<Backend> open_tensorrt(const Source& source) {
    check_gpu();
    return std::make_unique<TensorRtBackend>(source);
}

}  // namespace gatedeploy
