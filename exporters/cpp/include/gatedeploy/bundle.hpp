// What a bundle says about itself. A bundle may come from a stranger: nothing in it is believed before it is checked.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "gatedeploy/tensor.hpp"

namespace gatedeploy {

/// The batch sizes that a network takes.
struct Batches {
    std::int64_t min = 1;
    std::int64_t max = 1 << 20;  ///< as good as any: no call holds a million pictures
};

/// The picture: (batch, channels, height, width) float32, `(pixel / 255 - mean) / std` channel by channel.
struct InputSpec {
    std::string name;
    std::int64_t channels = 0;
    std::int64_t height = 0;
    std::int64_t width = 0;
    std::vector<double> mean;    ///< one per channel
    std::vector<double> stddev;  ///< one per channel

    /// How many values one picture has.
    std::size_t values() const { return static_cast<std::size_t>(channels * height * width); }
};

/// One question that is asked of the picture.
struct Task {
    std::string name;
    std::string kind;                  ///< one of gatedeploy's `TaskKind`, e.g. "depth"; "" where unknown
    std::vector<std::string> classes;  ///< the class names in the order of the scores; none for depth and normals
};

/// The network compiled for one runtime.
struct EngineSpec {
    std::string runtime;               ///< "openvino", "aoti", "tensorrt", "tensorrt-rtx" or "executorch"
    std::string version;               ///< of the library that made it
    std::vector<std::string> targets;  ///< what it was made for, e.g. {"x86_64", "avx2"}
    Batches batches;
};

/// A file of the bundle.
struct FileSpec {
    std::uint64_t size_bytes = 0;
    std::string sha256;  ///< of its content, 64 hexadecimal digits
};

/// What is remembered of one output for the reference picture; see `Engine::verify`.
struct Fingerprint {
    std::vector<std::int64_t> shape;
    double mean = 0;
    double stddev = 0;
    double max_abs = 0;
    double projection = 0;
    std::vector<double> first;
};

/// What the network answers to the picture that `seed` and `batch` make.
struct Reference {
    std::uint64_t seed = 0;
    std::int64_t batch = 1;
    double tolerance = 0;  ///< how far off a network of this precision may be, relative to an output's largest value
    std::map<std::string, Fingerprint> outputs;
};

/// What `manifest.json` says, as far as it takes to run the network.
struct Manifest {
    InputSpec input;
    std::vector<OutputSpec> outputs;  ///< in order
    std::vector<Task> tasks;
    std::map<std::string, EngineSpec> engines;  ///< by file
    std::map<std::string, FileSpec> files;      ///< every file but the manifest, by its path with forward slashes
    Reference reference;

    /// The task of this name. Throws InputError where there is none.
    const Task& task(const std::string& name) const;
};

/// A bundle whose files are those that its manifest lists.
struct Bundle {
    std::filesystem::path path;
    Manifest manifest;
};

/// Reads a bundle: its manifest, and that the folder holds the files listed there, unchanged, and nothing else.
/// Throws InputError: it is no bundle, of another version, or holds what no bundle may hold: links, names that leave
/// it. Throws CheckError: it is damaged: a file is missing, was added, or has changed, the manifest itself included.
Bundle read_bundle(const std::filesystem::path& path);

}  // namespace gatedeploy
