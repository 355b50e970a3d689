// A backend without a runtime: it computes sums of the picture.
#pragma once

#include <atomic>
#include <functional>
#include <numeric>

#include "backend.hpp"
#include "gatedeploy/engine.hpp"
#include "some_bundle.hpp"

namespace gatedeploy {

/// Output k of picture i is filled with the picture's sum plus k.
class FakeRequest : public Request {
public:
    FakeRequest(std::size_t picture, std::function<void()> meanwhile)
        : picture_(picture), meanwhile_(std::move(meanwhile)) {}

    void run(const float* pictures, std::int64_t batch, std::vector<Tensor>& outputs) override {
        meanwhile_();
        for (std::size_t position = 0; position < outputs.size(); ++position) {
            for (std::int64_t i = 0; i < batch; ++i) {
                const float* start = pictures + static_cast<std::size_t>(i) * picture_;
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
    std::function<void()> meanwhile_;
};

class FakeBackend : public Backend {
public:
    explicit FakeBackend(
        std::size_t picture, std::function<void()> meanwhile = [] {})
        : picture_(picture), meanwhile_(std::move(meanwhile)) {}

    std::unique_ptr<Request> request() override {
        ++made;
        return std::make_unique<FakeRequest>(picture_, meanwhile_);
    }

    std::atomic<int> made{0};  ///< requests so far

private:
    std::size_t picture_;
    std::function<void()> meanwhile_;
};

}  // namespace gatedeploy
