// What a manifest of a stranger's may not say.
#include "check.hpp"
#include "gatedeploy/errors.hpp"
#include "manifest_json.hpp"
#include "some_bundle.hpp"

using gatedeploy::CheckError;
using gatedeploy::InputError;
using gatedeploy::Manifest;
using gatedeploy::manifest_from_json;

namespace {

const std::string& body() {
    static const std::string text = SomeBundle().body();
    return text;
}

/// The manifest, sealed anew, with something else in it.
Manifest with(const std::string& from, const std::string& to) {
    return manifest_from_json(sealed(replaced(body(), from, to)));
}

}  // namespace

TEST(a_manifest_is_read) {
    const Manifest manifest = manifest_from_json(sealed(body()));
    CHECK(manifest.input.name == "image" && manifest.input.channels == 2 && manifest.input.values() == 24);
    CHECK((manifest.input.mean == std::vector<double>{0.5, 0.25}));
    CHECK((manifest.input.stddev == std::vector<double>{0.5, 2}));
    CHECK(manifest.outputs.size() == 3 && manifest.outputs[1].name == "depth_0" && manifest.outputs[1].task == "depth");
    CHECK((manifest.outputs[1].shape == std::vector<std::int64_t>{gatedeploy::kBatch, 1, 3, 4}));
    CHECK(manifest.outputs[1].values(5) == 60);
    CHECK(manifest.task("scene").classes[1] == "au\u00dfen" && manifest.task("depth").kind.empty());
    CHECK_THROWS(InputError, "there is no task 'x'; this network answers scene, depth", manifest.task("x"));
    const gatedeploy::EngineSpec& engine = manifest.engines.at("engine/some.plan");
    CHECK(engine.runtime == "tensorrt" && engine.batches.min == 2 && engine.batches.max == 5);
    CHECK(manifest.files.size() == 2 && manifest.files.at("model.onnx").size_bytes == 17);
    CHECK(manifest.reference.seed == 7 && manifest.reference.batch == 2 && manifest.reference.outputs.size() == 3);
}

TEST(a_changed_manifest_is_refused) {
    const std::string whole = sealed(body());
    const char* changed = "was changed, formatted anew or damaged";
    CHECK_THROWS(CheckError, changed, manifest_from_json(replaced(whole, "0.25", "0.26")));
    CHECK_THROWS(CheckError, changed, manifest_from_json(whole + "\n"));
    CHECK_THROWS(CheckError, changed, manifest_from_json(whole.substr(0, whole.size() - 1)));
    CHECK_THROWS(CheckError, changed, manifest_from_json(replaced(whole, "\n  \"content", "\n \"content")));
    CHECK_THROWS(CheckError, changed, manifest_from_json(body() + "}"));
    for (std::size_t size = 0; size < whole.size() - 1; size += 97) {
        CHECK_THROWS(InputError, "not complete JSON", manifest_from_json(whole.substr(0, size)));
    }
}

TEST(what_is_no_manifest_is_told) {
    for (const char* text : {"{}", "[]", "7", "{\"format\": 1}", "{\"format\": \"other\"}"}) {
        CHECK_THROWS(InputError, "not the manifest of a gatedeploy bundle", manifest_from_json(text));
    }
    CHECK_THROWS(InputError, "format version 4; this gatedeploy reads version 3",
                 with("\"version\": 3", "\"version\": 4"));
    CHECK_THROWS(InputError, "damaged (version: expected a whole", with("\"version\": 3", "\"version\": \"3\""));
    CHECK_THROWS(InputError, "damaged (has no 'tasks')", with("\"tasks\"", "\"tusks\""));
}

TEST(sizes_are_bounded) {
    const char* shape = "\"batch\", 2, 3, 4";
    CHECK_THROWS(InputError, "more than 268,435,456 values", with(shape, "\"batch\", 2, 30000, 30000"));
    CHECK_THROWS(InputError, "more than 268,435,456 values", with(shape, "\"batch\", 2, 999999999999999999, 3"));
    CHECK_THROWS(InputError, "inputs[0].shape[1]: expected a whole number", with(shape, "\"batch\", 1e300, 3, 4"));
    CHECK_THROWS(InputError, "shape[2]: expected a size of at least 1", with(shape, "\"batch\", 2, 0, 4"));
    CHECK_THROWS(InputError, "expected a whole number from 0 on, got less", with(shape, "\"batch\", 2, -3, -4"));
    CHECK_THROWS(InputError, "values for one picture", with("[\"batch\", 2]", "[\"batch\", 100000, 100000]"));
    CHECK_THROWS(InputError, "its first size is not the batch", with("[\"batch\", 2]", "[2, \"batch\"]"));
    CHECK_THROWS(InputError, "its first size is not the batch", with("[\"batch\", 2]", "[]"));
    CHECK_THROWS(InputError, "the batch size twice", with("[\"batch\", 2]", "[\"batch\", \"batch\"]"));
    CHECK_THROWS(InputError, "not known before it runs: 'axis_1'", with("[\"batch\", 2]", "[\"batch\", \"axis_1\"]"));
    CHECK_THROWS(InputError, "more than 8 axes", with("[\"batch\", 2]", "[\"batch\",1,1,1,1,1,1,1,1]"));
    CHECK_THROWS(InputError, "a reference of 65 pictures", with("\"batch\": 2,", "\"batch\": 65,"));
    CHECK_THROWS(InputError, "a reference of 0 pictures", with("\"batch\": 2,", "\"batch\": 0,"));
    CHECK_THROWS(InputError, "batches: no batch fits", with("\"max\": 5", "\"max\": 1"));
    CHECK_THROWS(InputError, "batches: no batch fits", with("\"min\": 2", "\"min\": 0"));
    CHECK(with("\"max\": 5", "\"max\": 999999999999999999").engines.begin()->second.batches.max == 1 << 20);
    CHECK(with("{\"min\": 2, \"opt\": 3, \"max\": 5}", "null").engines.begin()->second.batches.max == 1 << 20);
}

TEST(inputs_and_outputs_must_be_known) {
    CHECK_THROWS(InputError, "of a kind that this version does not know", with("NCHW", "NHWC"));
    CHECK_THROWS(InputError, "of a kind that this version does not know", with("\"scale\": 255", "\"scale\": 1"));
    CHECK_THROWS(InputError, "a type that this version does not know: 'complex64'", with("int64", "complex64"));
    CHECK_THROWS(InputError, "3 values for 2 channels", with("[0.5, 0.25]", "[0.5, 0.25, 1]"));
    CHECK_THROWS(InputError, "std[1]: must be positive", with("[0.5, 2]", "[0.5, 0]"));
    CHECK_THROWS(InputError, "no such kind 'guess'", with("\"classification\"", "\"guess\""));
    CHECK_THROWS(InputError, "needs the names of at least 2 classes", with("[\"in\", \"au\\u00dfen\"]", "[\"in\"]"));
    CHECK_THROWS(InputError, "does not fit on a line", with("\"in\"", "\"i\\u001b[2Jn\""));
    CHECK_THROWS(InputError, "outputs and tasks do not fit", with("\"task\": \"scene\"", "\"task\": \"other\""));
    CHECK_THROWS(InputError, "outputs and tasks do not fit", with("\"name\": \"depth_1\"", "\"name\": \"depth_0\""));
    CHECK_THROWS(InputError, "the reference has other outputs", with("\"depth_1\": {", "\"depth_2\": {"));
    CHECK_THROWS(InputError, "reference.outputs.scene.mean: expected a number", with("\"mean\": 0", "\"mean\": null"));
}

TEST(names_stay_in_the_folder) {
    for (const char* name : {"../model.onnx", "/etc/passwd", "a//b", "a/../b", "./a", ".hidden", "a/.hidden", "a\\\\b",
                             "C:a", "", "a/", "1/2/3/4/5/6/7", "manifest.json", "a b", "-a", "\\u00e4", "a\\u0000"}) {
        CHECK_THROWS(InputError, "expected plain names inside the bundle's folder. Refused",
                     with("\"model.onnx\": {\"size", std::string("\"") + name + "\": {\"size"));
    }
    const std::string longest(201, 'a');
    CHECK(with("\"model.onnx\": {\"size", "\"" + longest + "/a-._/1/2/3/4\": {\"size").files.size() == 2);
    CHECK_THROWS(InputError, "Refused", with("\"model.onnx\": {\"size", "\"" + longest + "a\": {\"size"));
    CHECK_THROWS(InputError, "not listed among the files",
                 with("\"engine/some.plan\": {\n", "\"engine/more.plan\": {\n"));
    CHECK_THROWS(InputError, "a SHA-256 that is none", with("\"sha256\": \"", "\"sha256\": \"g"));
    CHECK_THROWS(InputError, "size_bytes: expected a whole number", with("\"size_bytes\": 17", "\"size_bytes\": 1e99"));
    for (const char* name : {"../scene", "a/b", "", ".", "sc ene", "a\\n"}) {
        CHECK_THROWS(InputError, "expected a name such as 'depth'",
                     with("\"name\": \"scene\"", std::string("\"name\": \"") + name + "\""));
    }
}

TEST(the_tolerance_is_that_of_the_precision_at_most) {
    CHECK(with("\"tolerance\": 0.0001,\n    \"outputs\"", "\"tolerance\": 9,\n    \"outputs\"").reference.tolerance ==
          1e-4);
    CHECK(
        with("\"tolerance\": 0.0001,\n    \"outputs\"", "\"tolerance\": 1e-6,\n    \"outputs\"").reference.tolerance ==
        1e-6);
    const std::string int8 = replaced(body(), "fp32", "int8");
    const std::string loose =
        replaced(int8, "\"tolerance\": 0.0001,\n    \"outputs\"", "\"tolerance\": 9,\n    \"outputs\"");
    CHECK(manifest_from_json(sealed(loose)).reference.tolerance == 0.1);
    CHECK_THROWS(InputError, "precision: no such precision 'fp31'", with("fp32", "fp31"));
}
