// The engine around a runtime, with a fake one.
#include "gatedeploy/engine.hpp"

#include <condition_variable>
#include <future>
#include <mutex>

#include "allocations.hpp"
#include "check.hpp"
#include "fake_backend.hpp"
#include "gatedeploy/gatedeploy.hpp"
#include "reference.hpp"

using namespace gatedeploy;

namespace {

constexpr std::size_t kPicture = 24;

Engine fake_engine(Batches batches = {1, 5}) {
    const SomeBundle bundle;
    return {read_bundle(bundle.path()), "fake", batches, std::make_unique<FakeBackend>(kPicture)};
}

/// A bundle that remembers what the fake answers, run by one that answers so or otherwise.
Engine right_engine(
    Batches batches, FakeAnswers answers, Meanwhile meanwhile = [](std::int64_t) {}) {
    const SomeBundle some;
    Bundle bundle = read_bundle(some.path());
    Reference& reference = bundle.manifest.reference;
    const std::vector<float> pictures = reference_picture(bundle.manifest.input, reference.batch, reference.seed);
    for (const Tensor& output : fake_engine().infer(pictures.data(), pictures.size()).all()) {
        reference.outputs[output.name] = fingerprint(output, 2);
    }
    return {std::move(bundle), "fake", batches,
            std::make_unique<FakeBackend>(kPicture, std::move(meanwhile), answers)};
}

}  // namespace

TEST(answers_have_the_manifests_names_and_shapes) {
    const Engine engine = fake_engine();
    std::vector<float> pictures(3 * kPicture, 1);
    pictures.back() = 2;
    const Outputs outputs = engine.infer(pictures.data(), pictures.size());
    CHECK(outputs.all().size() == 3);
    const Tensor& scene = outputs["scene"];
    CHECK(scene.task == "scene" && (scene.shape == std::vector<std::int64_t>{3, 2}) && scene.values() == 6);
    CHECK(scene.data<float>()[0] == 24 && scene.data<float>()[5] == 25);
    CHECK((outputs["depth_0"].shape == std::vector<std::int64_t>{3, 1, 3, 4}));
    CHECK(outputs["depth_1"].data<std::int64_t>()[2] == 27);
    CHECK_THROWS(InputError, "output 'depth_1' holds int64, not float32", outputs["depth_1"].data<float>());
    CHECK_THROWS(InputError, "task 'depth' has several outputs: ask for one of depth_0, depth_1", outputs["depth"]);
    CHECK_THROWS(InputError, "no output 'x'; this network returns scene, depth_0, depth_1", outputs["x"]);
}

TEST(what_is_no_whole_picture_is_refused) {
    const Engine engine = fake_engine();
    Outputs outputs;
    const std::vector<float> pictures(6 * kPicture);
    const char* told = "input 'image': got 25 values; a picture is float32 (2, 3, 4), 24 values";
    CHECK_THROWS(InputError, told, engine.infer(pictures.data(), 25, outputs));
    CHECK_THROWS(InputError, "got 0 values", engine.infer(pictures.data(), 0, outputs));
    CHECK_THROWS(InputError, "a batch of 6; this engine takes 1 to 5: ask in parts",
                 engine.infer(pictures.data(), pictures.size(), outputs));
    const Engine large = fake_engine({2, 3});
    CHECK_THROWS(InputError, "a batch of 1; this engine takes 2 to 3", large.infer(pictures.data(), kPicture, outputs));
    const std::size_t huge = std::size_t{24} << 40;  // it is refused before it is looked at
    CHECK_THROWS(InputError, "a batch of 1,099,511,627,776", engine.infer(pictures.data(), huge, outputs));
}

TEST(a_call_allocates_nothing_after_the_first) {
    const Engine engine = fake_engine();
    const std::vector<float> pictures(5 * kPicture, 1);
    Outputs outputs;
    engine.infer(pictures.data(), pictures.size(), outputs);
    const std::uint64_t before = allocations_so_far();
    for (int round = 0; round < 1000; ++round) {
        const std::size_t batch = 1 + static_cast<std::size_t>(round) % 5;
        engine.infer(pictures.data(), batch * kPicture, outputs);
        CHECK(outputs["scene"].data<float>()[0] == 24);
    }
    CHECK(allocations_so_far() == before);
}

TEST(threads_that_call_at_once_are_not_kept_waiting) {
    // Each call waits for all the others to be in it too: this ends only where nothing is locked around a call.
    constexpr int kThreads = 8;
    std::mutex mutex;
    std::condition_variable all_here;
    int here = 0;
    const SomeBundle bundle;
    auto backend = std::make_unique<FakeBackend>(kPicture, [&](std::int64_t) {
        std::unique_lock<std::mutex> lock(mutex);
        if (++here == kThreads) all_here.notify_all();
        all_here.wait(lock, [&] { return here >= kThreads; });
    });
    const FakeBackend& fake = *backend;
    const Engine engine(read_bundle(bundle.path()), "fake", {}, std::move(backend));
    const std::vector<float> picture(kPicture, 1);
    std::vector<std::future<void>> calls;
    for (int i = 0; i < kThreads; ++i) {
        calls.push_back(std::async(std::launch::async, [&] { engine.infer(picture.data(), kPicture); }));
    }
    for (auto& call : calls) call.get();
    CHECK(fake.made == kThreads);
    engine.infer(picture.data(), kPicture);
    CHECK(fake.made == kThreads);  // and requests are used again
}

TEST(threads_get_their_own_answers) {
    const Engine engine = fake_engine();
    std::vector<std::future<void>> threads;
    for (int thread = 0; thread < 8; ++thread) {
        threads.push_back(std::async(std::launch::async, [&engine, thread] {
            Outputs outputs;
            for (int round = 0; round < 1000; ++round) {
                const std::size_t batch = 1 + static_cast<std::size_t>(round + thread) % 5;
                const float value = static_cast<float>(thread * 1000 + round);
                std::vector<float> pictures(batch * kPicture, 0);
                pictures[0] = value;
                engine.infer(pictures.data(), pictures.size(), outputs);
                CHECK(outputs["scene"].data<float>()[1] == value && outputs["depth_0"].data<float>()[0] == value + 1);
            }
        }));
    }
    for (auto& thread : threads) thread.get();
}

TEST(a_request_that_failed_is_not_used_again) {
    bool failing = true;
    const SomeBundle bundle;
    auto backend = std::make_unique<FakeBackend>(kPicture, [&](std::int64_t) {
        if (failing) throw Error("fake failed: on purpose");
    });
    const FakeBackend& fake = *backend;
    const Engine engine(read_bundle(bundle.path()), "fake", {}, std::move(backend));
    const std::vector<float> picture(kPicture, 1);
    CHECK_THROWS(Error, "on purpose", engine.infer(picture.data(), kPicture));
    failing = false;
    engine.infer(picture.data(), kPicture);
    CHECK(fake.made == 2);
}

TEST(wrong_numbers_are_found) {
    CHECK_THROWS(CheckError, "on this machine the network in fake at batch size 1 differs in output 'scene' by",
                 fake_engine().verify());
}

TEST(right_numbers_are_right_in_every_batch_that_is_taken) {
    const std::pair<Batches, std::vector<std::int64_t>> kinds[] = {
        {{1, 5}, {1, 1, 2, 5}},  // the two pictures one by one, together, and twice in five
        {{1, 1}, {1, 1}},
        {{3, 3}, {3}},
        {{5, 1 << 19}, {5, 1024}},
        {{}, {1, 1, 2}},
    };
    for (const auto& [batches, asked] : kinds) {
        std::vector<std::int64_t> seen;
        const auto remember = [&seen](std::int64_t batch) { seen.push_back(batch); };
        for (const auto& [output, error] : right_engine(batches, FakeAnswers::each, remember).verify()) {
            CHECK(!output.empty() && error == 0);  // the same additions in the same order
        }
        CHECK(seen == asked);
    }
}

TEST(one_answer_for_all_pictures_is_found) {
    for (const Batches batches : {Batches{1, 5}, Batches{2, 2}, Batches{3, 3}}) {
        const std::string size = std::to_string(std::max<std::int64_t>(batches.min, 2));
        CHECK_THROWS(CheckError, "in fake at batch size " + size + " differs in output 'scene' by",
                     right_engine(batches, FakeAnswers::first).verify());
    }
    right_engine({1, 1}, FakeAnswers::first).verify();  // one picture is the first one
}

TEST(an_engine_can_be_moved) {
    Engine engine = fake_engine();
    Engine other = std::move(engine);
    engine = std::move(other);
    CHECK(engine.backend() == "fake" && engine.batches().max == 5);
    const std::vector<float> picture(kPicture, 1);
    CHECK(engine.infer(picture.data(), kPicture)["scene"].data<float>()[0] == 24);
}

TEST(backends_are_called_by_their_names) {
    const SomeBundle bundle;
    CHECK_THROWS(InputError, "there is no backend 'onnx'; known are openvino, onnxruntime",
                 Engine::load(bundle.path(), {"onnx", 0, false}));
    CHECK_THROWS(InputError, "threads must be at least 1, got -1", Engine::load(bundle.path(), {"", -1, false}));
    const std::vector<std::string> built = backends();
    for (const char* name : {"openvino", "onnxruntime", "aoti", "tensorrt", "tensorrt-rtx"}) {
        if (std::find(built.begin(), built.end(), name) != built.end()) continue;
        CHECK_THROWS(MissingBackendError, "is not in this build of gatedeploy, which has",
                     Engine::load(bundle.path(), {name, 0, false}));
    }
    if (built.empty()) CHECK_THROWS(InputError, "holds nothing for no backend", Engine::load(bundle.path()));
}
