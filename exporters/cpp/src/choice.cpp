#include "choice.hpp"

#include <algorithm>

#include "gatedeploy/errors.hpp"
#include "text.hpp"

namespace gatedeploy {
namespace {

constexpr const char* kModel = "model.onnx";

struct Kind {
    const char* name;
    bool takes_onnx;
    bool runs_code;                                   // whether its files are programs
    std::unique_ptr<Backend> (*open)(const Source&);  // nullptr: not in this build
};

// Those that run no code of the bundle's come first.
const Kind kKinds[] = {
#ifdef GATEDEPLOY_HAS_OPENVINO
    {"openvino", true, false, open_openvino},
#else
    {"openvino", true, false, nullptr},
#endif
#ifdef GATEDEPLOY_HAS_ONNXRUNTIME
    {"onnxruntime", true, false, open_onnxruntime},
#else
    {"onnxruntime", true, false, nullptr},
#endif
#ifdef GATEDEPLOY_HAS_AOTI
    {"aoti", false, true, open_aoti},
#else
    {"aoti", false, true, nullptr},
#endif
#ifdef GATEDEPLOY_HAS_TENSORRT
    {"tensorrt", false, true, open_tensorrt},
#else
    {"tensorrt", false, true, nullptr},
#endif
#ifdef GATEDEPLOY_HAS_TENSORRT_RTX
    {"tensorrt-rtx", false, true, open_tensorrt},
#else
    {"tensorrt-rtx", false, true, nullptr},
#endif
};

std::string built() {
    const std::vector<std::string> names = backends();
    return names.empty() ? "no backend" : joined(names);
}

/// What `kind` can open of the bundle; no file where there is nothing.
Source source_for(const Kind& kind, const Bundle& bundle, int threads) {
    for (const auto& [file, engine] : bundle.manifest.engines) {
        if (engine.runtime == kind.name) return {bundle, bundle.path / file, &engine, threads};
    }
    const bool model = kind.takes_onnx && bundle.manifest.files.count(kModel) > 0;
    return {bundle, model ? bundle.path / kModel : std::filesystem::path(), nullptr, threads};
}

std::string contents(const Bundle& bundle) {
    std::vector<std::string> found;
    if (bundle.manifest.files.count(kModel)) found.push_back(kModel);
    for (const auto& [file, engine] : bundle.manifest.engines) found.push_back(file + " (" + engine.runtime + ")");
    return found.empty() ? "no network" : joined(found);
}

}  // namespace

std::vector<std::string> backends() {
    std::vector<std::string> names;
    for (const Kind& kind : kKinds) {
        if (kind.open) names.emplace_back(kind.name);
    }
    return names;
}

void check_backend(const std::string& name) {
    std::vector<std::string> known;
    for (const Kind& kind : kKinds) {
        known.emplace_back(kind.name);
        if (name != kind.name) continue;
        if (kind.open) return;
        throw MissingBackendError("the backend " + in_quotes(name) + " is not in this build of gatedeploy, which has " +
                                  built() + "; configure it again where its library is found: README.md says how");
    }
    throw InputError("there is no backend " + in_quotes(name) + "; known are " + joined(known));
}

Choice choose(const Bundle& bundle, const Options& options) {
    for (const Kind& kind : kKinds) {
        const Source source = source_for(kind, bundle, options.threads);
        const bool asked = options.backend == kind.name;
        if (!kind.open || source.file.empty() || !(asked || options.backend.empty())) continue;
        if (kind.runs_code && !options.trust) {
            throw InputError(source.file.string() +
                             ": is a program: opening it runs its maker's code, and hashes do not show who made it. If "
                             "you trust who made it, set trust; else take the backend openvino or onnxruntime, which "
                             "run none");
        }
        return {kind.name, source, kind.open};
    }
    const std::string wanted = options.backend.empty() ? built() : options.backend;
    throw InputError(bundle.path.string() + ": holds nothing for " + wanted + "; it holds " + contents(bundle) +
                     ": export it again with what you need, or take another backend");
}

}  // namespace gatedeploy
