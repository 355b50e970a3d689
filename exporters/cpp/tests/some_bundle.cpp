#include "some_bundle.hpp"

#include <cstdlib>
#include <fstream>
#include <stdexcept>

#include "sha256.hpp"

namespace fs = std::filesystem;

namespace {

constexpr const char* kModel = "no network at all";

constexpr const char* kBody = R"({
  "format": "gatedeploy.bundle",
  "version": 3,
  "precision": "fp32",
  "inputs": [
    {
      "name": "image", "shape": ["batch", 2, 3, 4], "dtype": "float32", "layout": "NCHW",
      "preprocessing": {"formula": "", "scale": 255, "mean": [0.5, 0.25], "std": [0.5, 2]}
    }
  ],
  "outputs": [
    {"name": "scene", "shape": ["batch", 2], "dtype": "float32", "task": "scene"},
    {"name": "depth_0", "shape": ["batch", 1, 3, 4], "dtype": "float32", "task": "depth"},
    {"name": "depth_1", "shape": ["batch"], "dtype": "int64", "task": "depth"}
  ],
  "tasks": [
    {"name": "scene", "kind": "classification", "classes": ["in", "au\u00dfen"], "labels": "labels/scene.txt"},
    {"name": "depth", "kind": null, "classes": [], "labels": null}
  ],
  "verification": {"runtime": "none", "tolerance": 0.0001, "seed": 0, "error": {}},
  "reference": {
    "seed": 7,
    "batch": 2,
    "tolerance": 0.0001,
    "outputs": {
      "scene": {"shape": [2, 2], "mean": 0, "std": 0, "max_abs": 0, "projection": 0, "first": [0, 0]},
      "depth_0": {"shape": [2, 1, 3, 4], "mean": 0, "std": 0, "max_abs": 0, "projection": 0, "first": [0]},
      "depth_1": {"shape": [2], "mean": 0, "std": 0, "max_abs": 0, "projection": 0, "first": []}
    }
  },
  "engines": {
    "engine/some.plan": {
      "runtime": "tensorrt", "version": "10.0", "targets": ["SM86"], "batches": {"min": 2, "opt": 3, "max": 5},
      "inputs": [], "outputs": [], "layers": {}, "error": {}, "lost": {}
    }
  },
  "files": {
    "engine/some.plan": {"size_bytes": 17, "sha256": "HASH"},
    "model.onnx": {"size_bytes": 17, "sha256": "HASH"}
  })";

}  // namespace

std::string sealed(const std::string& body) {
    return body + ",\n  \"content_sha256\": \"" + gatedeploy::sha256(body) + "\"\n}\n";
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
    const std::size_t place = text.find(from);
    if (place == std::string::npos) throw std::logic_error("there is no " + from);
    return text.replace(place, from.size(), to);
}

SomeBundle::SomeBundle() : body_(kBody) {
    std::string pattern = (fs::temp_directory_path() / "gatedeploy-XXXXXX").string();
    if (!mkdtemp(pattern.data())) throw std::runtime_error("no temporary folder");
    path_ = fs::path(pattern) / "bundle";
    fs::create_directories(path_ / "engine");
    const std::string hash = gatedeploy::sha256(kModel);
    body_ = replaced(replaced(body_, "HASH", hash), "HASH", hash);
    write("model.onnx", kModel);
    write("engine/some.plan", kModel);
    write_manifest(body_);
}

SomeBundle::~SomeBundle() {
    std::error_code ignored;
    fs::remove_all(path_.parent_path(), ignored);
}

void SomeBundle::write(const std::string& name, const std::string& content) const {
    std::ofstream(path_ / name, std::ios::binary) << content;
}

void SomeBundle::write_manifest(const std::string& body) const { write("manifest.json", sealed(body)); }
