import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from gatedeploy.errors import CheckError, InputError
from gatedeploy.exporters import Bundle, open_runner, read_bundle, reading, verify_bundle
from gatedeploy.exporters.manifest_json import manifest_from_json, manifest_to_json, sealed
from gatedeploy.files import sha256


def edit(bundle: Bundle, change: Callable[[Any], object]) -> None:
    """Change the manifest as JSON, and seal it again, so that the seal is not what is refused."""
    file = bundle.path / "manifest.json"
    document = json.loads(file.read_text())
    change(document)
    file.write_text(sealed(document))


def admit(bundle: Bundle, name: str) -> None:
    """Make the manifest agree with a changed or added file."""
    path = bundle.path / name
    entry = {"size_bytes": path.stat().st_size, "sha256": sha256(path)}
    edit(bundle, lambda document: document["files"].update({name: entry}))


def put(key: str, value: Any) -> Callable[[Any], object]:
    """The change that puts `value` at a dotted key."""

    def change(document: Any) -> None:
        *path, last = (int(part) if part.isdigit() else part for part in key.split("."))
        for part in path:
            document = document[part]
        document[last] = value

    return change


def test_what_was_written_is_read(exported: Bundle) -> None:
    assert read_bundle(str(exported.path)) == exported
    assert manifest_from_json(manifest_to_json(exported.manifest)) == exported.manifest


def test_a_flipped_byte_is_found_and_named(bundle: Bundle) -> None:
    content = bytearray(bundle.model.read_bytes())
    content[len(content) // 2] ^= 1
    bundle.model.write_bytes(content)
    good = bundle.manifest.files["model.onnx"].sha256
    with pytest.raises(
        CheckError, match=f"model.onnx was changed or damaged: its SHA-256 is .*, expected {good[:12]}…"
    ):
        read_bundle(bundle.path)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"accuracy": 0.75', '"accuracy": 0.95'),
        ('"tolerance": 0.0001', '"tolerance": 0.0002'),
        ('"road"', '"Road"'),
        ('"precision": "fp32"', '"precision": "fp31"'),
        ('"content_sha256": "', '"content_sha256": "0'),
        ('"content_sha256"', '"content_sha1"'),
        ('"version": 3,', '"version": 3, "version": 3,'),
        ("{\n", "{"),
    ],
    ids=["metrics", "verification", "classes", "precision", "its hash", "no hash", "a key twice", "a line end"],
)
def test_a_change_of_the_manifest_itself_is_found(bundle: Bundle, before: str, after: str) -> None:
    file = bundle.path / "manifest.json"
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after, 1))
    message = r"manifest.json: was changed, formatted anew or damaged: .* sealed by its content_sha256; copy or export"
    with pytest.raises(CheckError, match=message):
        read_bundle(bundle.path)


def test_the_hash_of_the_manifest_can_be_made_by_others(exported: Bundle) -> None:
    """As the bundle's README says."""
    text = (exported.path / "manifest.json").read_bytes()
    content, _, seal = text.rpartition(b",\n")
    assert seal.decode() == f'  "content_sha256": "{hashlib.sha256(content).hexdigest()}"\n}}\n'


def test_a_file_that_cannot_be_read_is_told(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(reading, "sha256", denied)
    with pytest.raises(InputError, match="bundle: cannot be read: Permission denied"):
        read_bundle(bundle.path)


def test_a_truncated_file_is_found(bundle: Bundle) -> None:
    bundle.model.write_bytes(bundle.model.read_bytes()[:-1])
    with pytest.raises(CheckError, match=r"model.onnx has [\d,]+ bytes, expected"):
        read_bundle(bundle.path)


def test_missing_and_added_files_are_found(bundle: Bundle) -> None:
    (bundle.path / "labels" / "extra.txt").write_text("boo")
    with pytest.raises(CheckError, match=r"holds labels/extra.txt, which the manifest does not list"):
        read_bundle(bundle.path)
    (bundle.path / "labels" / "extra.txt").rename(bundle.path.parent / "extra.txt")
    (bundle.path / "README.md").unlink()
    with pytest.raises(CheckError, match=r"README.md is missing"):
        read_bundle(bundle.path)


@pytest.mark.parametrize("name", ["README.md", "labels/parts.txt", "manifest.json"])
def test_links_are_refused(bundle: Bundle, name: str) -> None:
    # The content is right, so only the link can be what is refused.
    outside = bundle.path.parent / "outside"
    (bundle.path / name).rename(outside)
    (bundle.path / name).symlink_to(outside)
    with pytest.raises(InputError, match=r"is a link; a bundle holds plain files only|not a bundle"):
        read_bundle(bundle.path)


def test_linked_folders_and_pipes_are_refused(bundle: Bundle) -> None:
    (bundle.path / "labels").rename(bundle.path.parent / "labels")
    (bundle.path / "labels").symlink_to(bundle.path.parent / "labels")
    with pytest.raises(InputError, match="labels is a link"):
        read_bundle(bundle.path)
    (bundle.path / "labels").unlink()
    os.mkfifo(bundle.path / "labels")
    with pytest.raises(InputError, match="labels is neither a file nor a folder"):
        read_bundle(bundle.path)


@pytest.mark.parametrize(
    "name",
    ["../outside", "/etc/passwd", "labels/../../outside", "C:\\x", "..", "", "a//b", "./a", ".hidden", "manifest.json"],
)
def test_names_that_leave_the_folder_are_refused(bundle: Bundle, name: str) -> None:
    (bundle.path.parent / "outside").write_text("secret")
    entry = {"size_bytes": 6, "sha256": sha256(bundle.path.parent / "outside")}
    edit(bundle, lambda document: document["files"].update({name: entry}))
    with pytest.raises(InputError, match=r"manifest.json: lists a file .*; expected plain names inside"):
        read_bundle(bundle.path)


def test_what_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: no such folder; expected the folder of a bundle"):
        read_bundle(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"not a bundle \(no manifest.json in it\); gatedeploy export writes one"):
        read_bundle(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file: a file; expected the folder of a bundle"):
        read_bundle(tmp_path / "file")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "manifest.json: not complete JSON"),
        (b'{"format": "gatedeploy.bund', "manifest.json: not complete JSON"),
        (b"\xff\xfe\x00", "manifest.json: not text"),
        (b"[" * 100_000, "not complete JSON"),
        (b"[]", "not the manifest of a gatedeploy bundle"),
        (b'{"name": "a web app"}', "not the manifest of a gatedeploy bundle"),
        (b'{"format": "gatedeploy.bundle"}', "format version None; this gatedeploy reads version 3"),
        (b'{"format": "gatedeploy.bundle", "version": 4}', "format version 4; .* install the one that wrote it"),
        (sealed({"format": "gatedeploy.bundle", "version": 3}).encode(), "manifest.json: has no 'outputs'"),
    ],
)
def test_manifests_that_cannot_be_used(bundle: Bundle, content: bytes, message: str) -> None:
    (bundle.path / "manifest.json").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_bundle(bundle.path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("inputs", []), ("inputs.0.layout", "NHWC"), ("inputs.0.shape", ["batch", 3, -8, 8]), ("inputs.0.name", 3)),
        *(("inputs.0.preprocessing.mean", [0.1]), ("inputs.0.preprocessing.std", ["a"] * 3)),
        *(
            ("outputs", []),
            ("outputs.0.task", "nobody"),
            ("outputs.0.shape", 3),
        ),
        *(("outputs.0.shape", [2, "batch"]), ("outputs.0.shape", []), ("tasks.0.name", "not a name")),
        *(("tasks.0.kind", "guessing"), ("costs.macs", "many"), ("costs.params", True), ("files", [])),
        *(("files", {"model.onnx": {"size_bytes": 1, "sha256": "short"}}), ("metrics", {"scene": 3})),
        *(("verification.error", []), ("reference.batch", 10**12), ("reference.outputs", {}), ("reference.seed", 0.5)),
        *(("reference.outputs.scene.first", [0.0] * 9), ("reference.outputs.scene.mean", None), ("tools", {"a": 1})),
    ],
)
def test_fields_of_the_wrong_kind_are_told_and_never_crash(bundle: Bundle, key: str, value: Any) -> None:
    edit(bundle, put(key, value))
    with pytest.raises(InputError, match=r"manifest.json: "):
        read_bundle(bundle.path)


def test_a_number_that_is_none_is_refused(bundle: Bundle) -> None:
    file = bundle.path / "manifest.json"
    file.write_text(file.read_text().replace('"tolerance": 0.0001', '"tolerance": NaN'))
    with pytest.raises(InputError, match=r"not complete JSON .the number NaN"):
        read_bundle(bundle.path)


def test_verify_finds_a_network_that_computes_something_else(bundle: Bundle) -> None:
    model = onnx.load(str(bundle.model))
    (weight,) = (tensor for tensor in model.graph.initializer if tensor.name == "heads.scene.scores.bias")
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) + 0.01, weight.name))
    onnx.save(model, str(bundle.model))
    admit(bundle, "model.onnx")
    read_bundle(bundle.path)
    with pytest.raises(CheckError, match=r"model.onnx: on this machine the network in onnxruntime at batch size 1 d"):
        verify_bundle(bundle.path)


def test_verify_finds_a_network_that_gives_every_picture_the_first_ones_answer(bundle: Bundle) -> None:
    model = onnx.load(str(bundle.model))
    (last,) = (node for node in model.graph.node if node.output[0] == "scene")
    last.output[0] = "each"
    for name, value in {"zero": 0, "one": 1}.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([value]), name))
    model.graph.node.extend(
        [
            onnx.helper.make_node("Slice", ["each", "zero", "one", "zero"], ["first"]),
            onnx.helper.make_node("Shape", ["each"], ["size"]),
            onnx.helper.make_node("Expand", ["first", "size"], ["scene"]),
        ]
    )
    onnx.save(model, str(bundle.model))
    admit(bundle, "model.onnx")
    with pytest.raises(CheckError, match=r"in onnxruntime at batch size 3 differs in task 'scene' by"):
        verify_bundle(bundle.path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("precision", "fp31", "precision: 'fp31'; known are fp32, tf32, fp16, bf16, int8, fp8"),
        ("tasks.0.labels", "../../secret", 'tasks[0].labels: expected "labels/scene.txt"'),
        ("inputs", None, "inputs: expected a list, got null"),
        ("inputs.0.dtype", "float64", "inputs[0].dtype: expected 'float32', which is all that this version knows"),
        ("outputs.0.shape.1", 2.5, "outputs[0].shape[1]: expected a whole number from 0 on, got 2.5"),
        ("costs.gated", {"macs": -1}, "costs.gated.macs: expected a whole number from 0 on, got -1"),
        ("verification.tolerance", 10**400, "verification.tolerance: a number that is too large"),
    ],
)
def test_the_place_is_named(bundle: Bundle, key: str, value: Any, message: str) -> None:
    edit(bundle, put(key, value))
    with pytest.raises(InputError, match=re.escape(message)):
        read_bundle(bundle.path)


def test_a_network_of_other_shapes_is_not_opened(bundle: Bundle) -> None:
    edit(bundle, put("outputs.1.shape", ["batch", 3]))
    for runtime in ("onnxruntime", "openvino"):
        with pytest.raises(CheckError, match=r"model.onnx: 'parts' is float32 \(batch, 3, 8, 8\); its manifest says"):
            open_runner(bundle.path, runtime)


def test_verify_is_never_looser_than_float32(bundle: Bundle) -> None:
    edit(bundle, put("reference.tolerance", 1e9))
    assert verify_bundle(bundle.path).parity.tolerance == 1e-4


def test_verify_finds_what_is_not_valid_onnx(bundle: Bundle) -> None:
    model = onnx.load(str(bundle.model))
    model.graph.node[0].op_type = "Convolve"
    onnx.save(model, str(bundle.model))
    admit(bundle, "model.onnx")
    with pytest.raises(
        CheckError, match=r"model.onnx: not valid ONNX: .*Convolve.*; its hash fits, so it was not damaged"
    ):
        verify_bundle(bundle.path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("inputs.0.name", "picture"), "takes image and returns scene, parts; its manifest says picture and"),
        (put("inputs.0.shape", ["batch", 3, 9, 8]), r"'image' is float32 \(batch, 3, 8, 8\); its manifest says the"),
        (put("outputs.1.shape", ["batch", 3]), r"'parts' is float32 \(batch, 3, 8, 8\); its manifest says the shape"),
        (put("reference.outputs.scene.shape", [3, 3]), r"output 'scene': expected the shape \(3, 3\), got \(3, 2\)"),
    ],
)
def test_verify_finds_a_manifest_of_another_network(
    bundle: Bundle, change: Callable[[Any], object], message: str
) -> None:
    edit(bundle, change)
    with pytest.raises(CheckError, match=message):
        verify_bundle(bundle.path)


def test_a_bundle_without_onnx_says_what_it_holds(bundle: Bundle) -> None:
    files = {name: entry for name, entry in bundle.manifest.files.items() if name != "model.onnx"}
    other = Bundle(bundle.path, dataclasses.replace(bundle.manifest, files=files, formats=("trt",)))
    with pytest.raises(InputError, match=r"holds no model.onnx; it holds trt"):
        _ = other.model
