#include "gatedeploy/engine.hpp"

#include "choice.hpp"
#include "pool.hpp"
#include "text.hpp"
#include "verification.hpp"

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
    return located(state_->bundle.path.string(), [&] { return check_reference(*this); });
}

const Manifest& Engine::manifest() const { return state_->bundle.manifest; }

const std::string& Engine::backend() const { return state_->backend_name; }

Batches Engine::batches() const { return state_->batches; }

}  // namespace gatedeploy
