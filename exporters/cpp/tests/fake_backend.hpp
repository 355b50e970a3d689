// A backend without a runtime: it computes sums of the picture.
#pragma once

#include <atomic>
#include <functional>
#include <numeric>

#include "backend.hpp"
#include "gatedeploy/engine.hpp"
#include "some_bundle.hpp"

namespace gatedeploy {

/// What a fake does while it computes so many pictures.
using Meanwhile = std::function<void(std::int64_t batch)>;

/// Whether a picture gets its own answer, or all of a batch that of its first picture, which is wrong.
enum class FakeAnswers { each, first };

/// Output k of picture i is filled with the picture's sum plus k.
class FakeRequest : public Request {
public:
    FakeRequest(std::size_t picture, Meanwhile meanwhile, FakeAnswers answers)
        : picture_(picture), meanwhile_(std::move(meanwhile)), answers_(answers) {}

    void run(const float* pictures, std::int64_t batch, std::vector<Tensor>& outputs) override {
        meanwhile_(batch);
        for (std::size_t position = 0; position < outputs.size(); ++position) {
            for (std::int64_t i = 0; i < batch; ++i) {
                const std::size_t asked = answers_ == FakeAnswers::first ? 0 : static_cast<std::size_t>(i);
                const float* start = pictures + asked * picture_;
                fill(outputs[position], i, batch,
                     std::accumulate(start, start + picture_, 0.0f) + static_cast<float>(position));
            }
        }
    }

private:
    static void fill(Tensor& output, std::int64_t i, std::int64_t batch, float value) {
        const auto each = output.values() / static_cast<std::size_t>(batch), first = static_cast<std::size_t>(i) * each;
        for (std::size_t place = first; place < first + each; ++place) {
            if (output.dtype == DType::float32) reinterpret_cast<float*>(output.bytes.data())[place] = value;
            if (output.dtype == DType::int64) {
                reinterpret_cast<std::int64_t*>(output.bytes.data())[place] = static_cast<std::int64_t>(value);
            }
        }
    }

    std::size_t picture_;
    Meanwhile meanwhile_;
    FakeAnswers answers_;
};

class FakeBackend : public Backend {
public:
    explicit FakeBackend(
        std::size_t picture, Meanwhile meanwhile = [](std::int64_t) {}, FakeAnswers answers = FakeAnswers::each)
        : picture_(picture), meanwhile_(std::move(meanwhile)), answers_(answers) {}

    std::unique_ptr<Request> request() override {
        ++made;
        return std::make_unique<FakeRequest>(picture_, meanwhile_, answers_);
    }

    std::atomic<int> made{0};  ///< requests so far

private:
    std::size_t picture_;
    Meanwhile meanwhile_;
    FakeAnswers answers_;
};

}  // namespace gatedeploy
