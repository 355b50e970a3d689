// What a folder of a stranger's may not hold.
#include "gatedeploy/bundle.hpp"

#include <sys/stat.h>

#include <fstream>

#include "check.hpp"
#include "gatedeploy/errors.hpp"
#include "some_bundle.hpp"

namespace fs = std::filesystem;
using gatedeploy::CheckError;
using gatedeploy::InputError;
using gatedeploy::read_bundle;

TEST(a_whole_bundle_is_read) {
    const SomeBundle bundle;
    CHECK(read_bundle(bundle.path()).manifest.files.size() == 2);
    fs::create_directory(bundle.path() / "empty");
    CHECK(read_bundle(bundle.path()).path == bundle.path());
}

TEST(what_is_no_bundle_is_told) {
    const SomeBundle bundle;
    CHECK_THROWS(InputError, "nowhere: no such folder; expected the folder of a bundle", read_bundle("nowhere"));
    CHECK_THROWS(InputError, "model.onnx: a file; expected the folder", read_bundle(bundle.path() / "model.onnx"));
    CHECK_THROWS(InputError, "not a bundle (no manifest.json in it)", read_bundle(bundle.path() / "engine"));
    fs::rename(bundle.path() / "manifest.json", bundle.path() / "other");
    fs::create_symlink("other", bundle.path() / "manifest.json");
    CHECK_THROWS(InputError, "not a bundle (no manifest.json in it)", read_bundle(bundle.path()));
}

TEST(damaged_files_are_told) {
    const SomeBundle bundle;
    bundle.write("model.onnx", "No network at all");
    CHECK_THROWS(CheckError, "model.onnx was changed or damaged: its SHA-256 is ", read_bundle(bundle.path()));
    bundle.write("model.onnx", "no network");
    CHECK_THROWS(CheckError, ": model.onnx has 10 bytes, expected 17", read_bundle(bundle.path()));
    fs::remove(bundle.path() / "model.onnx");
    CHECK_THROWS(CheckError, ": model.onnx is missing; copy or export", read_bundle(bundle.path()));
}

TEST(what_is_not_listed_is_refused) {
    const SomeBundle bundle;
    bundle.write("engine/more", "");
    CHECK_THROWS(CheckError, "holds engine/more, which the manifest does not list", read_bundle(bundle.path()));
    for (int i = 0; i < 300; ++i) bundle.write("more" + std::to_string(i), "");
    CHECK_THROWS(CheckError, "holds far more files than the manifest lists", read_bundle(bundle.path()));
}

TEST(links_and_the_like_are_refused) {
    const SomeBundle bundle;
    fs::rename(bundle.path() / "model.onnx", bundle.path() / "../model.onnx");
    fs::create_symlink("../model.onnx", bundle.path() / "model.onnx");
    CHECK_THROWS(InputError, "model.onnx is a link; a bundle holds plain files only. Refused",
                 read_bundle(bundle.path()));
    fs::remove(bundle.path() / "model.onnx");
    CHECK(mkfifo((bundle.path() / "model.onnx").c_str(), 0600) == 0);
    CHECK_THROWS(InputError, "model.onnx is neither a file nor a folder", read_bundle(bundle.path()));
}

TEST(folders_that_are_links_are_refused) {
    const SomeBundle bundle;
    fs::rename(bundle.path() / "engine", bundle.path() / "../engine");
    fs::create_directory_symlink("../engine", bundle.path() / "engine");
    CHECK_THROWS(InputError, "engine is a link", read_bundle(bundle.path()));
}

TEST(deep_folders_are_not_followed) {
    const SomeBundle bundle;
    fs::create_directories(bundle.path() / "1/2/3/4/5/6/7/8");
    CHECK_THROWS(InputError, "1/2/3/4/5/6 is a folder that no bundle has", read_bundle(bundle.path()));
}

TEST(huge_manifests_are_not_read) {
    const SomeBundle bundle;
    fs::resize_file(bundle.path() / "manifest.json", std::uintmax_t{1} << 40);
    CHECK_THROWS(InputError, "has 1,099,511,627,776 bytes; no bundle's manifest is that large",
                 read_bundle(bundle.path()));
    fs::resize_file(bundle.path() / "manifest.json", 0);
    CHECK_THROWS(InputError, "manifest.json: not complete JSON", read_bundle(bundle.path()));
}

TEST(a_hash_of_another_file_is_refused) {
    const SomeBundle bundle;
    bundle.write_manifest(
        replaced(bundle.body(), "\"size_bytes\": 17, \"sha256\": \"", "\"size_bytes\": 17, \"sha256\": \"0"));
    CHECK_THROWS(InputError, "a SHA-256 that is none", read_bundle(bundle.path()));
}
