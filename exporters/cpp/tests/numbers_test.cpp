// A real backend on the bundles that tests/cpp/bundles.py makes: its numbers are Python's.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <future>

#include "allocations.hpp"
#include "check.hpp"
#include "gatedeploy/gatedeploy.hpp"
#include "reference.hpp"
#include "some_bundle.hpp"

namespace fs = std::filesystem;
using namespace gatedeploy;

namespace {

constexpr double kTolerance = 1e-5;  // relative to the output's largest value
constexpr std::int64_t kBatches[] = {1, 2, 3, 7};

std::string setting(const char* name) {
    const char* value = std::getenv(name);
    if (!value) throw Skipped(std::string(name) + " is not set");
    return value;
}

fs::path folder() { return setting("GATEDEPLOY_TEST_FOLDER"); }

std::string backend() { return setting("GATEDEPLOY_TEST_BACKEND"); }

Engine load(const char* bundle = "bundle", int threads = 1) {
    try {
        return Engine::load(folder() / bundle, {backend(), threads, true});
    } catch (const InputError& error) {
        const std::string said = error.what();
        if (said.find("holds nothing for") != std::string::npos || said.find("on a GPU") != std::string::npos) {
            throw Skipped(said);
        }
        throw;
    }
}

template <class T>
std::vector<T> read(const fs::path& path) {
    std::vector<T> values(fs::file_size(path) / sizeof(T));
    std::ifstream file(path, std::ios::binary);
    file.read(reinterpret_cast<char*>(values.data()), static_cast<std::streamsize>(values.size() * sizeof(T)));
    if (!file) throw Failure(path.string() + ": cannot be read");
    return values;
}

fs::path expected(std::int64_t batch, const std::string& name) {
    return folder() / "expected" / std::to_string(batch) / (name + ".raw");
}

/// A picture and what Python answers to it, in the order of the outputs.
struct Case {
    std::vector<float> image;
    std::vector<std::vector<float>> answers;
};

Case read_case(std::int64_t batch, const Manifest& manifest) {
    Case result{read<float>(expected(batch, "image")), {}};
    for (const OutputSpec& output : manifest.outputs)
        result.answers.push_back(read<float>(expected(batch, output.name)));
    return result;
}

/// A copy of the bundle that may be spoilt.
struct Copy {
    Copy() {
        static int made = 0;
        const std::string name = "gatedeploy-copy-" + std::to_string(getpid()) + "-" + std::to_string(++made);
        path = fs::temp_directory_path() / name;
        fs::copy(folder() / "bundle", path, fs::copy_options::recursive);
    }
    ~Copy() { fs::remove_all(path); }
    Copy(const Copy&) = delete;
    Copy& operator=(const Copy&) = delete;

    /// Changes the manifest and seals it anew.
    void change(const std::string& from, const std::string& to) const {
        const std::vector<char> bytes = read<char>(path / "manifest.json");
        const std::string text(bytes.begin(), bytes.end());
        const std::string body = text.substr(0, text.rfind(",\n  \"content_sha256\""));
        std::ofstream(path / "manifest.json", std::ios::binary) << sealed(replaced(body, from, to));
    }

    fs::path path;
};

void check_answers(const Outputs& outputs, const Case& expected_case) {
    CHECK(outputs.all().size() == expected_case.answers.size());
    for (std::size_t position = 0; position < outputs.all().size(); ++position) {
        const Tensor& got = outputs.all()[position];
        const std::vector<float>& wanted = expected_case.answers[position];
        CHECK(got.values() == wanted.size());
        float scale = 0, error = 0;
        for (std::size_t i = 0; i < wanted.size(); ++i) {
            scale = std::max(scale, std::abs(wanted[i]));
            error = std::max(error, std::abs(wanted[i] - got.data<float>()[i]));
        }
        CHECK(error <= kTolerance * scale);
    }
}

}  // namespace

TEST(numbers_are_pythons) {
    const bool takes_onnx = backend() == "openvino" || backend() == "onnxruntime";
    for (const auto& [bundle, threads] : {std::pair{"bundle", 0}, {"bundle", 2}, {"onnx", 0}}) {
        if (std::string(bundle) == "onnx" && !takes_onnx) continue;
        const Engine engine = load(bundle, threads);
        Outputs outputs;
        for (std::int64_t batch : kBatches) {
            const Case one = read_case(batch, engine.manifest());
            engine.infer(one.image.data(), one.image.size(), outputs);
            check_answers(outputs, one);
        }
    }
}

TEST(bytes_are_pythons) {
    if (backend() != "openvino") return;
    const Engine engine = load("int8");
    const auto noise = read<float>(folder() / "noise.raw");
    Case one{noise, {}};
    for (const OutputSpec& output : engine.manifest().outputs) {
        one.answers.push_back(read<float>(folder() / "int8_expected" / (output.name + ".raw")));
    }
    check_answers(engine.infer(noise.data(), noise.size()), one);
    engine.verify();
}

TEST(the_reference_is_pythons) {
    const Engine engine = load();
    for (const auto& [output, error] : engine.verify()) {
        std::printf("%s: %s is off by %.1e\n", engine.backend().c_str(), output.c_str(), error);
        CHECK(error <= kTolerance);
    }
    CHECK(reference_picture(engine.manifest().input, 3, 5) == read<float>(folder() / "noise.raw"));
}

TEST(preprocessing_is_pythons) {
    const Engine engine = load();
    const auto pixels = read<std::uint8_t>(expected(3, "pixels"));
    std::vector<float> image(pixels.size());
    preprocess(engine.manifest().input, pixels.data(), pixels.size(), image.data());
    CHECK(image == read<float>(expected(3, "image")));  // to the last bit
}

TEST(batches_out_of_range_are_refused) {
    const Engine engine = load();
    const Batches batches = engine.batches();
    if (batches.max > 1000) return;  // any
    const std::vector<float> pictures(engine.manifest().input.values() * static_cast<std::size_t>(batches.max + 1));
    CHECK_THROWS(InputError, "this engine takes " + std::to_string(batches.min) + " to ",
                 engine.infer(pictures.data(), pictures.size()));
    engine.infer(pictures.data(), pictures.size() - engine.manifest().input.values());
}

TEST(programs_of_strangers_are_refused) {
    load();  // or skipped
    if (backend() == "openvino" || backend() == "onnxruntime") return;
    CHECK_THROWS(InputError, "is a program: opening it runs its maker's code",
                 Engine::load(folder() / "bundle", {backend(), 0, false}));
}

TEST(damaged_bundles_are_refused) {
    load();  // or skipped
    const Copy copy;
    std::fstream(copy.path / "model.onnx", std::ios::in | std::ios::out | std::ios::binary).put('x');
    CHECK_THROWS(CheckError, "model.onnx was changed or damaged", Engine::load(copy.path, {backend(), 0, true}));
}

TEST(code_that_does_not_fit_is_refused) {
    load();  // or skipped
    if (backend() != "aoti") return;
    const Copy copy;
    copy.change("\"runtime\": \"aoti\",\n      \"version\": \"", "\"runtime\": \"aoti\",\n      \"version\": \"1.");
    CHECK_THROWS(InputError, "was made by PyTorch 1.2.", Engine::load(copy.path, {backend(), 0, true}));
    const Copy other;
    other.change("\"targets\": [\n        \"", "\"targets\": [\n        \"another ");
    CHECK_THROWS(InputError, "was compiled for another ", Engine::load(other.path, {backend(), 0, true}));
}

TEST(another_network_than_the_manifests_is_refused) {
    load();                           // or skipped
    if (backend() == "aoti") return;  // whose packages have no names
    const Copy copy;
    copy.change("\"name\": \"image\"", "\"name\": \"picture\"");
    CHECK_THROWS(CheckError, "its manifest says picture and scene, parts",
                 Engine::load(copy.path, {backend(), 0, true}));
    const Copy other;
    other.change("\"batch\",\n        2\n", "\"batch\",\n        3\n");
    CHECK_THROWS(CheckError, "'scene' is float32 (batch, 2); its manifest says float32 (batch, 3)",
                 Engine::load(other.path, {backend(), 0, true}));
}

TEST(eight_threads_get_their_own_answers) {
    const Engine engine = load();
    std::vector<Case> cases;
    for (std::int64_t batch : kBatches) cases.push_back(read_case(batch, engine.manifest()));
    const int rounds = std::atoi(setting("GATEDEPLOY_TEST_ROUNDS").c_str());
    std::vector<std::future<void>> threads;
    for (int thread = 0; thread < 8; ++thread) {
        threads.push_back(std::async(std::launch::async, [&, thread] {
            Outputs outputs;
            for (int round = 0; round < rounds; ++round) {
                const Case& one = cases[static_cast<std::size_t>(thread + round) % cases.size()];
                engine.infer(one.image.data(), one.image.size(), outputs);
                check_answers(outputs, one);
            }
        }));
    }
    for (auto& thread : threads) thread.get();
}

TEST(what_a_call_allocates_is_told) {
    const Engine engine = load();
    const Case one = read_case(1, engine.manifest());
    Outputs outputs;
    for (int round = 0; round < 10; ++round) engine.infer(one.image.data(), one.image.size(), outputs);
    const std::uint64_t before = allocations_so_far();
    constexpr int kRounds = 100;
    for (int round = 0; round < kRounds; ++round) engine.infer(one.image.data(), one.image.size(), outputs);
    const double each = static_cast<double>(allocations_so_far() - before) / kRounds;
    std::printf("%s: %.1f allocations a call, of the runtime's\n", engine.backend().c_str(), each);
}
