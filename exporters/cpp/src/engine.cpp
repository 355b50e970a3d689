#include "gatedeploy/engine.hpp"

#include <algorithm>

#include "choice.hpp"
#include "pool.hpp"
#include "ports.hpp"
#include "reference.hpp"
#include "text.hpp"

namespace gatedeploy {

struct Engine::State {
    State(Bundle from, std::string with, Batches takes, std::unique_ptr<Backend> runs)
        : bundle(std::move(from)),
          backend_name(std::move(with)),
          batches(takes),
          backend(std::move(runs)),
          pool(*backend) {}

    Bundle bundle;
    std::string backend_name;
    Batches batches;
    std::unique_ptr<Backend> backend;
    Pool pool;  // after `backend`, which it uses
};

namespace {

/// The batch size of so many values.
std::int64_t batch_of(std::size_t values, const InputSpec& image, Batches batches) {
    const std::size_t one = image.values();
    if (values == 0 || values % one != 0) {
        throw InputError("input " + in_quotes(image.name) + ": got " + grouped(values) +
                         " values; a picture is float32 " + shape_text({image.channels, image.height, image.width}) +
                         ", " + grouped(one) + " values");
    }
    const std::size_t batch = values / one;
    if (batch < static_cast<std::size_t>(batches.min) || batch > static_cast<std::size_t>(batches.max)) {
        throw InputError("input " + in_quotes(image.name) + ": a batch of " + grouped(batch) + "; this engine takes " +
                         std::to_string(batches.min) + " to " + std::to_string(batches.max) +
                         ": ask in parts, or export with other --min-shapes and --max-shapes");
    }
    return static_cast<std::int64_t>(batch);
}

/// The answers to the first `wanted` of `batch` pictures.
Tensor first_pictures(Tensor output, std::int64_t batch, std::int64_t wanted) {
    if (wanted < batch && !output.shape.empty() && output.shape[0] == batch) {
        output.bytes.resize(output.bytes.size() / static_cast<std::size_t>(batch) * static_cast<std::size_t>(wanted));
        output.shape[0] = wanted;
    }
    return output;
}

double error_of(const Tensor& output, const std::map<std::string, Fingerprint>& expected) {
    const Fingerprint& print = expected.at(output.name);
    check_shape(output, print.shape);
    if (print.first.size() > output.values()) throw CheckError("the reference has more first values than values");
    return difference(print, fingerprint(output, print.first.size()));
}

void check_rounding(const std::string& output, double error, double allowed) {
    if (error <= allowed) return;  // a NaN is not
    throw CheckError("on this machine the network differs in output " + in_quotes(output) + " by " +
                     short_number(error) + " of the output's scale; at most " + short_number(allowed) + " is rounding");
}

}  // namespace

Engine Engine::load(const std::filesystem::path& path, const Options& options) {
    if (options.threads < 0) throw InputError("threads must be at least 1, got " + std::to_string(options.threads));
    if (!options.backend.empty()) check_backend(options.backend);
    const Bundle bundle = read_bundle(path);
    const Choice choice = choose(bundle, options);
    std::unique_ptr<Backend> backend = located(choice.source.file.string(), [&] { return choice.open(choice.source); });
    return {bundle, choice.backend, choice.source.batches(), std::move(backend)};
}

Engine::Engine(Bundle bundle, std::string backend, Batches batches, std::unique_ptr<Backend> runs)
    : state_(std::make_unique<State>(std::move(bundle), std::move(backend), batches, std::move(runs))) {}

Engine::Engine(Engine&&) noexcept = default;
Engine& Engine::operator=(Engine&&) noexcept = default;
Engine::~Engine() = default;

void Engine::infer(const float* pictures, std::size_t values, Outputs& outputs) const {
    const Manifest& about = manifest();
    const std::int64_t batch = batch_of(values, about.input, state_->batches);
    std::vector<Tensor>& room = outputs.fit(about.outputs, batch);
    state_->pool.use([&](Request& request) { request.run(pictures, batch, room); });
}

Outputs Engine::infer(const float* pictures, std::size_t values) const {
    Outputs outputs;
    infer(pictures, values, outputs);
    return outputs;
}

std::map<std::string, double> Engine::verify() const {
    const Reference& reference = manifest().reference;
    return located(state_->bundle.path.string(), [&] {
        // An engine that takes no fewer gets more pictures; the first ones are the reference's.
        const std::int64_t batch = std::max(reference.batch, state_->batches.min);
        const std::vector<float> pictures = reference_picture(manifest().input, batch, reference.seed);
        const Outputs outputs = infer(pictures.data(), pictures.size());
        std::map<std::string, double> errors;
        for (const Tensor& output : outputs.all()) {
            const double error = error_of(first_pictures(output, batch, reference.batch), reference.outputs);
            check_rounding(output.name, error, reference.tolerance);
            errors[output.name] = error;
        }
        return errors;
    });
}

const Manifest& Engine::manifest() const { return state_->bundle.manifest; }

const std::string& Engine::backend() const { return state_->backend_name; }

Batches Engine::batches() const { return state_->batches; }

}  // namespace gatedeploy
