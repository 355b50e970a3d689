// Requests, as many as threads call at once.
#pragma once

#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "backend.hpp"

namespace gatedeploy {

class Pool {
public:
    explicit Pool(Backend& backend) : backend_(backend) {}

    /// Calls `work` with a request that nobody else uses; one is made where all are in use. Nothing is locked while it
    /// works. A request that failed is dropped: who knows what state it is in.
    template <class Work>
    void use(Work work) {
        std::unique_ptr<Request> request = idle_one();
        try {
            if (!request) request = make();
            work(*request);
        } catch (...) {
            const std::lock_guard<std::mutex> lock(mutex_);
            --alive_;
            throw;
        }
        const std::lock_guard<std::mutex> lock(mutex_);
        idle_.push_back(std::move(request));
    }

private:
    /// Nothing where all are in use; then the caller makes one.
    std::unique_ptr<Request> idle_one() {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (idle_.empty()) {
            idle_.reserve(alive_ + 1);  // so that giving back allocates nothing
            ++alive_;
            return nullptr;
        }
        std::unique_ptr<Request> request = std::move(idle_.back());
        idle_.pop_back();
        return request;
    }

    std::unique_ptr<Request> make() {
        const std::lock_guard<std::mutex> lock(making_);  // runtimes do not promise that two can be made at once
        return backend_.request();
    }

    Backend& backend_;
    std::mutex making_;
    std::mutex mutex_;  // of what follows
    std::vector<std::unique_ptr<Request>> idle_;
    std::size_t alive_ = 0;
};

}  // namespace gatedeploy
