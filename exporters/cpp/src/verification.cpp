#include "verification.hpp"

#include <algorithm>
#include <set>

#include "ports.hpp"
#include "reference.hpp"
#include "text.hpp"

namespace gatedeploy {
namespace {

/// No more pictures than these are tried at once: a stranger may say that his engine takes any number.
constexpr std::int64_t kMostAtOnce = 1024;

/// One picture, `usual` ones, and the fewest and the most that an engine takes; of these, those that it takes.
std::set<std::int64_t> batches_to_try(std::int64_t usual, Batches batches) {
    std::set<std::int64_t> sizes = {batches.min};
    if (batches.max < Batches{}.max) sizes.insert(std::max(batches.min, std::min(batches.max, kMostAtOnce)));
    for (std::int64_t size : {std::int64_t{1}, usual}) {
        if (size >= batches.min && size <= batches.max) sizes.insert(size);
    }
    return sizes;
}

/// The first `count` pictures of `cycle` ones, which follow each other again and again.
std::vector<float> cycled(const std::vector<float>& cycle, std::size_t count) {
    std::vector<float> pictures(count);
    for (std::size_t i = 0; i < count; ++i) pictures[i] = cycle[i % cycle.size()];
    return pictures;
}

/// The answers to `count` pictures, `size` at once. The last call is filled up with the first pictures, whose answers
/// are left out.
std::vector<Tensor> in_pieces(const Engine& engine, const std::vector<float>& cycle, std::int64_t count,
                              std::int64_t size) {
    const std::size_t one = engine.manifest().input.values(), piece = static_cast<std::size_t>(size) * one;
    const std::int64_t calls = (count + size - 1) / size;
    const std::vector<float> pictures = cycled(cycle, static_cast<std::size_t>(calls) * piece);
    std::vector<Tensor> joined;
    for (std::int64_t call = 0; call < calls; ++call) {
        const Outputs outputs = engine.infer(pictures.data() + static_cast<std::size_t>(call) * piece, piece);
        joined.resize(outputs.all().size());
        for (std::size_t i = 0; i < joined.size(); ++i) {
            std::vector<std::byte> bytes = std::move(joined[i].bytes);
            joined[i] = outputs.all()[i];
            bytes.insert(bytes.end(), joined[i].bytes.begin(), joined[i].bytes.end());
            joined[i].bytes = std::move(bytes);
            joined[i].shape[0] = (call + 1) * size;
        }
    }
    return joined;
}

/// The answers to `count` pictures from the one at `start` on.
Tensor cut(const Tensor& output, std::int64_t start, std::int64_t count) {
    Tensor part = output;
    const std::int64_t each = static_cast<std::int64_t>(output.bytes.size()) / output.shape[0];
    part.bytes.assign(output.bytes.begin() + start * each, output.bytes.begin() + (start + count) * each);
    part.shape[0] = count;
    return part;
}

double error_of(const Tensor& output, const Fingerprint& expected) {
    check_shape(output, expected.shape);
    if (expected.first.size() > output.values()) throw CheckError("the reference has more first values than values");
    return difference(expected, fingerprint(output, expected.first.size()));
}

void check_rounding(const std::string& where, const std::string& output, double error, double allowed) {
    if (error <= allowed) return;  // a NaN is not
    throw CheckError("on this machine the network " + where + " differs in output " + in_quotes(output) + " by " +
                     short_number(error) + " of the output's scale; at most " + short_number(allowed) + " is rounding");
}

}  // namespace

std::map<std::string, double> check_reference(const Engine& engine) {
    const Reference& reference = engine.manifest().reference;
    const std::vector<float> pictures = reference_picture(engine.manifest().input, reference.batch, reference.seed);
    std::map<std::string, double> worst;
    for (std::int64_t size : batches_to_try(reference.batch, engine.batches())) {
        const std::string where = "in " + engine.backend() + " at batch size " + std::to_string(size);
        const std::int64_t count = std::max<std::int64_t>(1, size / reference.batch) * reference.batch;
        for (const Tensor& output : in_pieces(engine, pictures, count, size)) {
            for (std::int64_t start = 0; start < count; start += reference.batch) {
                const Tensor part = cut(output, start, reference.batch);
                const double error = error_of(part, reference.outputs.at(output.name));
                check_rounding(where, output.name, error, reference.tolerance);
                worst[output.name] = std::max(worst[output.name], error);
            }
        }
    }
    return worst;
}

}  // namespace gatedeploy
