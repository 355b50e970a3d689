#include "manifest_json.hpp"

#include <algorithm>
#include <cmath>
#include <set>

#include "gatedeploy/errors.hpp"
#include "json.hpp"
#include "names.hpp"
#include "sha256.hpp"
#include "text.hpp"

namespace gatedeploy {
namespace {

constexpr const char* kFormat = "gatedeploy.bundle";
constexpr std::int64_t kVersion = 3;
constexpr const char* kAgain = "export or copy the bundle again";

/// Whether the text ends in its own seal: the SHA-256 of what comes before the comma before the seal's line.
bool is_sealed(std::string_view text) {
    constexpr std::string_view kBefore = ",\n  \"content_sha256\": \"", kAfter = "\"\n}\n";
    constexpr std::size_t kDigits = 64, kLine = kBefore.size() + kDigits + kAfter.size();
    if (text.size() < kLine) return false;
    const std::string_view body = text.substr(0, text.size() - kLine), line = text.substr(body.size());
    return line.substr(0, kBefore.size()) == kBefore && line.substr(kBefore.size() + kDigits) == kAfter &&
           line.substr(kBefore.size(), kDigits) == sha256(body);
}

std::string name_in(const JsonField& field) {
    if (!is_name(field.text())) field.refuse("expected a name such as 'depth', got " + in_quotes(field.text()));
    return field.text();
}

/// Sizes without the batch; `values` grows by as many times.
std::int64_t size_in(const JsonField& field, std::int64_t& values) {
    const std::int64_t size = field.count();
    if (size < 1) field.refuse("expected a size of at least 1");
    if (size > kMostValues / values) field.refuse("more than " + grouped(kMostValues) + " values for one picture");
    values *= size;
    return size;
}

DType dtype_in(const JsonField& field) {
    for (DType dtype : {DType::boolean, DType::uint8, DType::int8, DType::int32, DType::int64, DType::float16,
                        DType::float32, DType::float64}) {
        if (field.text() == name_of(dtype)) return dtype;
    }
    field.refuse("a type that this version does not know: " + in_quotes(field.text()));
}

std::vector<double> moments_in(const JsonField& field, std::int64_t channels, bool positive) {
    std::vector<double> result;
    for (const JsonField& item : field.items()) {
        result.push_back(item.number());
        if (!std::isfinite(result.back()) || (positive && result.back() <= 0)) {
            item.refuse(positive ? "must be positive, since pixels are divided by it" : "expected a number");
        }
    }
    if (static_cast<std::int64_t>(result.size()) != channels) {
        field.refuse(std::to_string(result.size()) + " values for " + std::to_string(channels) + " channels");
    }
    return result;
}

InputSpec input_in(const JsonField& inputs) {
    const std::vector<JsonField> all = inputs.items();
    if (all.size() != 1) inputs.refuse("expected one picture, got " + std::to_string(all.size()) + " inputs");
    const JsonField &item = all[0], preprocessing = item["preprocessing"];
    const std::vector<JsonField> shape = item["shape"].items();
    if (shape.size() != 4 || !shape[0].is_text() || shape[0].text() != "batch" || item["dtype"].text() != "float32" ||
        item["layout"].text() != "NCHW" || preprocessing["scale"].number() != 255) {
        item.refuse("an input of a kind that this version does not know");
    }
    InputSpec input;
    std::int64_t values = 1;
    input.name = name_in(item["name"]);
    input.channels = size_in(shape[1], values);
    input.height = size_in(shape[2], values);
    input.width = size_in(shape[3], values);
    input.mean = moments_in(preprocessing["mean"], input.channels, false);
    input.stddev = moments_in(preprocessing["std"], input.channels, true);
    return input;
}

OutputSpec output_in(const JsonField& item) {
    constexpr std::size_t kMostAxes = 8;
    OutputSpec output{name_in(item["name"]), name_in(item["task"]), dtype_in(item["dtype"]), {}};
    std::int64_t values = 1;
    for (const JsonField& size : item["shape"].items()) {
        const bool batch = size.is_text() && size.text() == "batch";
        if (size.is_text() && !batch) size.refuse("a size that is not known before it runs: " + in_quotes(size.text()));
        output.shape.push_back(batch ? kBatch : size_in(size, values));
    }
    if (output.shape.size() > kMostAxes) item.refuse("more than " + std::to_string(kMostAxes) + " axes");
    if (output.shape.empty() || output.shape[0] != kBatch) item.refuse("its first size is not the batch");
    if (std::count(output.shape.begin(), output.shape.end(), kBatch) > 1) item.refuse("the batch size twice");
    return output;
}

Task task_in(const JsonField& item) {
    Task task{name_in(item["name"]), "", {}};
    if (!item["kind"].is_null()) task.kind = item["kind"].text();
    const bool classes = task.kind == "classification" || task.kind == "segmentation";
    static const std::set<std::string> kWithout = {"", "depth", "normals", "saliency", "edges"};
    if (!classes && kWithout.count(task.kind) == 0) {
        item["kind"].refuse("no such kind " + in_quotes(task.kind) +
                            "; there are classification, segmentation, depth, normals, saliency, edges");
    }
    for (const JsonField& name : item["classes"].items()) {
        if (!is_one_line(name.text())) name.refuse("a class name that does not fit on a line of its own");
        task.classes.push_back(name.text());
    }
    if (classes && task.classes.size() < 2) item.refuse(task.kind + " needs the names of at least 2 classes");
    return task;
}

EngineSpec engine_in(const JsonField& item) {
    EngineSpec engine{item["runtime"].text(), item["version"].text(), {}, {}};
    for (const JsonField& target : item["targets"].items()) engine.targets.push_back(target.text());
    const JsonField batches = item["batches"];
    if (!batches.is_null()) {
        const std::int64_t largest = batches["max"].count();
        engine.batches.min = batches["min"].count();
        engine.batches.max = std::min(largest, engine.batches.max);
        if (engine.batches.min < 1 || engine.batches.min > engine.batches.max) batches.refuse("no batch fits");
    }
    return engine;
}

FileSpec file_in(const JsonField& item) {
    const std::string& hash = item["sha256"].text();
    if (hash.size() != 64 || hash.find_first_not_of("0123456789abcdef") != std::string::npos) {
        item.refuse("a SHA-256 that is none");
    }
    return {static_cast<std::uint64_t>(item["size_bytes"].count()), hash};
}

Fingerprint fingerprint_in(const JsonField& item) {
    Fingerprint print;
    for (const JsonField& size : item["shape"].items()) print.shape.push_back(size.count());
    print.mean = item["mean"].number();
    print.stddev = item["std"].number();
    print.max_abs = item["max_abs"].number();
    print.projection = item["projection"].number();
    for (const JsonField& value : item["first"].items()) print.first.push_back(value.number());
    return print;
}

/// The tolerance that a manifest names, but no looser one than rounding in its precision needs.
double tolerance_in(const JsonField& item, const JsonField& precision) {
    const std::map<std::string, double> most = {{"fp32", 1e-4}, {"tf32", 1e-2}, {"fp16", 1e-2},
                                                {"bf16", 5e-2}, {"int8", 1e-1}, {"fp8", 2e-1}};
    const auto found = most.find(precision.text());
    if (found == most.end()) precision.refuse("no such precision " + in_quotes(precision.text()));
    return std::min(item.number(), found->second);
}

Reference reference_in(const JsonField& item, const Manifest& manifest) {
    Reference reference;
    reference.seed = static_cast<std::uint64_t>(item["seed"].count());
    reference.batch = item["batch"].count();
    const auto values = static_cast<std::int64_t>(manifest.input.values());
    if (reference.batch < 1 || reference.batch > std::min(kMostReference, kMostValues / values)) {
        item.refuse("a reference of " + grouped(static_cast<std::uint64_t>(reference.batch)) + " pictures");
    }
    for (const auto& [name, print] : item["outputs"].members()) reference.outputs[name] = fingerprint_in(print);
    for (const OutputSpec& output : manifest.outputs) {
        if (!reference.outputs.count(output.name)) item.refuse("the reference has other outputs");
    }
    if (reference.outputs.size() != manifest.outputs.size()) item.refuse("the reference has other outputs");
    return reference;
}

void check_tasks(const Manifest& manifest, const JsonField& document) {
    std::set<std::string> tasks, outputs;
    for (const Task& task : manifest.tasks) tasks.insert(task.name);
    bool fits = !manifest.outputs.empty() && tasks.size() == manifest.tasks.size();
    for (const OutputSpec& output : manifest.outputs) {
        fits = fits && tasks.count(output.task) > 0 && outputs.insert(output.name).second;
    }
    if (!fits) document.refuse("outputs and tasks do not fit");
}

std::string file_name(const std::string& name) {
    if (is_file_name(name) && name != kManifest) return name;
    throw InputError("lists a file " + in_quotes(name) + "; expected plain names inside the bundle's folder. Refused");
}

Manifest manifest_in(const JsonField& document) {
    Manifest manifest;
    manifest.input = input_in(document["inputs"]);
    for (const JsonField& item : document["outputs"].items()) manifest.outputs.push_back(output_in(item));
    for (const JsonField& item : document["tasks"].items()) manifest.tasks.push_back(task_in(item));
    check_tasks(manifest, document);
    for (const auto& [name, item] : document["files"].members()) manifest.files[file_name(name)] = file_in(item);
    for (const auto& [name, item] : document["engines"].members()) {
        manifest.engines[file_name(name)] = engine_in(item);
        if (!manifest.files.count(name)) item.refuse("an engine that is not listed among the files");
    }
    manifest.reference = reference_in(document["reference"], manifest);
    manifest.reference.tolerance = tolerance_in(document["reference"]["tolerance"], document["precision"]);
    return manifest;
}

}  // namespace

Manifest manifest_from_json(std::string_view text) {
    Json json;
    try {
        json = parse_json(text);
    } catch (const JsonError& error) {
        throw InputError("not complete JSON (" + std::string(error.what()) + "); " + kAgain);
    }
    const JsonField document(json, "");
    const bool object = std::holds_alternative<Json::Members>(json.value);
    if (!object || !document.has("format") || !document["format"].is_text() || document["format"].text() != kFormat) {
        throw InputError("not the manifest of a gatedeploy bundle (its format is not " + in_quotes(kFormat) + ")");
    }
    try {
        const std::int64_t version = document["version"].count();
        if (version != kVersion) {
            throw InputError("format version " + std::to_string(version) + "; this gatedeploy reads version " +
                             std::to_string(kVersion) + ": install the one that wrote it");
        }
        if (!is_sealed(text)) {
            throw CheckError(
                "was changed, formatted anew or damaged: it is not the text that gatedeploy export wrote, sealed by "
                "its content_sha256; copy or export the bundle again");
        }
        return manifest_in(document);
    } catch (const JsonError& error) {
        throw InputError("damaged (" + std::string(error.what()) + "); " + kAgain);
    }
}

}  // namespace gatedeploy
