// AOTInductor packages: networks that PyTorch compiled to machine code, on the CPU.
#include <ATen/Parallel.h>
#include <ATen/ops/from_blob.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <torch/version.h>

#include <algorithm>
#include <cstring>
#include <thread>

#include "backend.hpp"
#include "gatedeploy/errors.hpp"
#include "ports.hpp"
#include "processor.hpp"
#include "text.hpp"

namespace gatedeploy {
namespace {

std::string first_line(const std::exception& error) {
    const std::string text = error.what();
    return text.substr(0, text.find('\n'));
}

/// Throws InputError for machine code of another PyTorch or another processor, which would crash the process.
void check_fits_here(const EngineSpec& engine) {
    const std::string made = engine.version.substr(0, engine.version.find('+'));
    const std::string here = std::string(TORCH_VERSION).substr(0, std::string(TORCH_VERSION).find('+'));
    if (made != here) {
        throw InputError("was made by PyTorch " + shown(made) + ", and this program has " + here +
                         "; build it with that one, or export again");
    }
    check_targets(engine.targets);
}

at::ScalarType type_of(DType dtype) {
    switch (dtype) {
        case DType::boolean:
            return at::kBool;
        case DType::uint8:
            return at::kByte;
        case DType::int8:
            return at::kChar;
        case DType::int32:
            return at::kInt;
        case DType::int64:
            return at::kLong;
        case DType::float16:
            return at::kHalf;
        case DType::float32:
            return at::kFloat;
        case DType::float64:
            return at::kDouble;
    }
    throw Error("a type that PyTorch does not have");
}

using Loader = torch::inductor::AOTIModelPackageLoader;

class AotiRequest : public Request {
public:
    AotiRequest(Loader& loader, const InputSpec& image, int threads)
        : loader_(loader), image_(image), threads_(threads) {}

    void run(const float* pictures, std::int64_t batch, std::vector<Tensor>& outputs) override {
        try {
            const c10::InferenceMode guard;
            if (threads_ > 0) at::set_num_threads(threads_);  // OpenMP has a number for every calling thread
            float* image = const_cast<float*>(pictures);      // it only reads an input
            const std::vector<at::Tensor> found = loader_.run({at::from_blob(
                image, {batch, image_.channels, image_.height, image_.width}, at::TensorOptions(at::kFloat))});
            if (found.size() != outputs.size()) {
                throw CheckError("returns " + grouped(found.size()) + " outputs; its manifest says " +
                                 grouped(outputs.size()));
            }
            for (std::size_t position = 0; position < outputs.size(); ++position) {
                copy(found[position], outputs[position]);
            }
        } catch (const c10::Error& error) {
            throw Error("aoti failed: " + std::string(error.what_without_backtrace()));
        } catch (const Error&) {
            throw;
        } catch (const std::exception& error) {  // of the package's own code
            throw Error("aoti failed: " + first_line(error));
        }
    }

private:
    static void copy(const at::Tensor& found, Tensor& output) {
        const auto sizes = found.sizes();
        if (!std::equal(sizes.begin(), sizes.end(), output.shape.begin(), output.shape.end())) {
            check_shape(output, sizes.vec());
        }
        if (found.scalar_type() != type_of(output.dtype)) {
            throw CheckError("output " + in_quotes(output.name) + " is not the " + name_of(output.dtype) +
                             " that its manifest says");
        }
        const at::Tensor whole = found.cpu().contiguous();
        std::memcpy(output.bytes.data(), whole.const_data_ptr(), output.bytes.size());
    }

    Loader& loader_;
    InputSpec image_;
    int threads_;
};

/// A package holds so many instances of its network, and a call waits until one is free. They share their weights.
std::size_t instances() { return std::max(16u, 2 * std::thread::hardware_concurrency()); }

class AotiBackend : public Backend {
public:
    explicit AotiBackend(const Source& source)
        : loader_(source.file.string(), "model", false, instances()),
          image_(source.bundle.manifest.input),
          threads_(source.threads) {}

    std::unique_ptr<Request> request() override { return std::make_unique<AotiRequest>(loader_, image_, threads_); }

private:
    Loader loader_;
    InputSpec image_;
    int threads_;
};

}  // namespace

std::unique_ptr<Backend> open_aoti(const Source& source) {
    check_fits_here(*source.engine);
    try {
        return std::make_unique<AotiBackend>(source);
    } catch (const std::exception& error) {  // the loader raises whatever opening an archive and a library raises
        throw InputError("PyTorch " TORCH_VERSION " cannot load it (" + first_line(error) +
                         "); export it again with this PyTorch, on this kind of machine");
    }
}

}  // namespace gatedeploy
