// A network that is ready to answer.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "gatedeploy/bundle.hpp"
#include "gatedeploy/errors.hpp"
#include "gatedeploy/tensor.hpp"

namespace gatedeploy {

struct Options {
    /// "openvino", "onnxruntime", "aoti", "tensorrt" or "tensorrt-rtx"; empty: the first of them, in this order, that
    /// is in this build and that the bundle has a file for.
    std::string backend;

    /// Threads that compute one call; 0 leaves it to the runtime. On a GPU it means nothing.
    int threads = 0;

    /// Whether files that are programs may be opened: aoti's, tensorrt's and tensorrt-rtx's. They run with the rights
    /// of your process, and a hash does not show who made them. Set it for makers that you trust.
    bool trust = false;
};

/// The names of the backends in this build, in the order in which they are tried.
std::vector<std::string> backends();

class Backend;

/// A loaded bundle. Any number of threads may call `infer` and `verify` at once.
class Engine {
public:
    /// Checks the whole bundle and loads it.
    /// Throws InputError, CheckError: see `read_bundle`; the runtime cannot load it; or it is another network than the
    /// manifest says. Throws MissingBackendError: the backend is not in this build.
    static Engine load(const std::filesystem::path& bundle, const Options& options = {});

    /// Answers one call.
    ///
    /// pictures: (batch, channels, height, width), C order, preprocessed (`preprocess`); `values` numbers in all, which
    /// says the batch size. They must not change while the call runs.
    /// outputs: takes the answers; a call that finds one used before, for as many pictures, allocates nothing itself.
    /// Throws InputError: `values` is not that of whole pictures, or of more or fewer than `batches` allows.
    /// Throws Error: the runtime failed. The next call is not affected.
    void infer(const float* pictures, std::size_t values, Outputs& outputs) const;

    /// The same with outputs of its own.
    Outputs infer(const float* pictures, std::size_t values) const;

    /// Runs the bundle's reference pictures, one by one, together, and as few and as many at once as `batches` allows;
    /// by output, how far off the numbers are at most, relative to the output's scale.
    /// Throws CheckError where that is more than rounding: then this machine does not compute what was exported.
    std::map<std::string, double> verify() const;

    const Manifest& manifest() const;

    /// The name of the backend that runs it.
    const std::string& backend() const;

    /// The batch sizes that `infer` takes.
    Batches batches() const;

    /// For backends of your own, and for tests: `load` ends here.
    Engine(Bundle bundle, std::string backend, Batches batches, std::unique_ptr<Backend> runs);
    Engine(Engine&&) noexcept;
    Engine& operator=(Engine&&) noexcept;
    ~Engine();

private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace gatedeploy
