// predict BUNDLE PICTURE OUT_DIR [--backend B] [--trust]: answers to one picture, as files.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <exception>

#include "gatedeploy/gatedeploy.hpp"
#include "pictures.hpp"

namespace fs = std::filesystem;
namespace gd = gatedeploy;

namespace {

constexpr const char* kUsage =
    "usage: predict BUNDLE PICTURE OUT_DIR [--backend B] [--trust]\n"
    "  BUNDLE     a folder that gatedeploy export wrote\n"
    "  PICTURE    a .png, or .raw: 8-bit pixels, row by row, channels last\n"
    "  OUT_DIR    gets a file per output: OUTPUT.raw, and a picture of what can be looked at\n"
    "  --backend  %s; the first that can run the bundle otherwise\n"
    "  --trust    run a program that the bundle holds; say it only for a maker that you trust\n";

struct Arguments {
    std::vector<std::string> paths;
    gd::Options options;
};

Arguments read_arguments(int count, char** words) {
    Arguments arguments;
    for (int i = 1; i < count; ++i) {
        const std::string word = words[i];
        if (word == "--trust") {
            arguments.options.trust = true;
        } else if (word == "--backend" && i + 1 < count) {
            arguments.options.backend = words[++i];
        } else if (word.rfind("--", 0) == 0) {
            throw gd::InputError("there is no option " + word);
        } else {
            arguments.paths.push_back(word);
        }
    }
    return arguments;
}

void tell_class(const gd::Tensor& output, const gd::Task& task) {
    if (task.kind != "classification" || output.dtype != gd::DType::float32 || output.values() == 0) return;
    const float* scores = output.data<float>();
    const auto best = static_cast<std::size_t>(std::max_element(scores, scores + output.values()) - scores);
    if (best < task.classes.size()) std::printf("  %s: %s\n", task.name.c_str(), task.classes[best].c_str());
}

void write_answers(const gd::Outputs& outputs, const gd::Manifest& manifest, const fs::path& folder) {
    fs::create_directories(folder);
    for (const gd::Tensor& output : outputs.all()) {
        const gd::Task& task = manifest.task(output.task);
        const fs::path file = folder / (output.name + ".raw");  // the library lets no name pass that leaves the folder
        write_bytes(file, output.bytes.data(), output.bytes.size());
        std::string shape;
        for (std::int64_t size : output.shape) shape += (shape.empty() ? "" : ", ") + std::to_string(size);
        std::printf("%s: %s (%s)\n", file.string().c_str(), gd::name_of(output.dtype), shape.c_str());
        tell_class(output, task);
        const fs::path view = write_view(folder, output, task);
        if (!view.empty()) std::printf("  to look at: %s\n", view.string().c_str());
    }
}

void predict(const Arguments& arguments) {
    const gd::Engine engine = gd::Engine::load(arguments.paths[0], arguments.options);
    double worst = 0;
    for (const auto& [output, error] : engine.verify()) worst = std::max(worst, error);
    std::printf("%s computes what was exported, to %.1e of its scale\n", engine.backend().c_str(), worst);

    const gd::InputSpec& input = engine.manifest().input;
    const std::vector<std::uint8_t> pixels = read_pixels(arguments.paths[1], input);
    std::vector<float> picture(pixels.size());
    gd::preprocess(input, pixels.data(), pixels.size(), picture.data());
    write_answers(engine.infer(picture.data(), picture.size()), engine.manifest(), arguments.paths[2]);
}

}  // namespace

int main(int count, char** words) {
    try {
        const Arguments arguments = read_arguments(count, words);
        if (arguments.paths.size() != 3) {
            std::string names;
            for (const std::string& name : gd::backends()) names += (names.empty() ? "" : ", ") + name;
            std::fprintf(stderr, kUsage, names.empty() ? "none was built" : names.c_str());
            return 2;
        }
        predict(arguments);
        return 0;
    } catch (const gd::InputError& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 2;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
