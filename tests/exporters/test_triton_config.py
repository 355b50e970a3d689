"""The text that tells Triton what a model takes and returns, read back by the real parser."""

from __future__ import annotations

import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import gatedeploy as gd
from gatedeploy.artifact import ModelInfo
from gatedeploy.errors import InputError
from gatedeploy.exporters import Bundle, write_bundle
from gatedeploy.exporters.manifest import Manifest
from gatedeploy.exporters.triton import write_triton
from gatedeploy.exporters.triton_config import Served, config_text, lines, quoted, served_onnx
from gatedeploy.runners.base import TensorSpec
from tests.exporters.networks import INPUT, PARTS, SCENE
from tests.exporters.test_triton import IMAGE, model_config_pb2, parsed


def manifest_of(manifest: Manifest, output: TensorSpec, task: gd.Task) -> Manifest:
    return replace(manifest, outputs=(output,), tasks=(task,), task_of={output.name: task.name})


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (
            TensorSpec("y", ("batch", 2), "bfloat16"),
            r"'y' is bfloat16 \(batch, 2\), a type that Triton does not have; it",
        ),
        (TensorSpec("y", (7, 2), "float32"), "Triton makes batches along the first axis, which is not free here"),
        (TensorSpec("y", (), "float32"), "Triton makes batches along the first axis"),
        (TensorSpec("y", ("batch", 0), "float32"), "Triton takes tensors with a name, and none without content"),
        (TensorSpec("", ("batch", 1), "float32"), "Triton takes tensors with a name"),
        (TensorSpec("y\ud800", ("batch", 1), "float32"), "is no text that UTF-8 can hold, and Triton has no other"),
    ],
)
def test_tensors_that_triton_does_not_have(exported: Bundle, output: TensorSpec, message: str) -> None:
    manifest = manifest_of(exported.manifest, output, gd.Task("t"))
    with pytest.raises(InputError, match=message):
        config_text(served_onnx(manifest, "x"), manifest)


@pytest.mark.parametrize(
    ("shape", "dims", "reshape"),
    [(("batch",), [1], True), (("batch", 5), [5], False), (("batch", 5, "axis_2"), [5, -1], False)],
)
def test_sizes(exported: Bundle, shape: tuple[Any, ...], dims: list[int], reshape: bool) -> None:
    """One number per picture has no sizes left: Triton wants them written otherwise, "Reshape" in its docs."""
    manifest = manifest_of(exported.manifest, TensorSpec("t", shape, "int64"), gd.Task("t"))
    (output,) = parsed(config_text(served_onnx(manifest, "x"), manifest)).output
    assert (list(output.dims), output.HasField("reshape"), list(output.reshape.shape)) == (dims, reshape, [])
    assert output.data_type == model_config_pb2.TYPE_INT64


@pytest.mark.parametrize(
    ("kind", "sizes", "labels"),
    [
        ("classification", (2,), "scene_labels.txt"),
        ("classification", (6,), ""),
        ("classification", (2, 1), ""),
        ("segmentation", (2,), ""),
        (None, (2,), ""),
    ],
)
def test_only_one_score_per_class_has_labels(exported: Bundle, kind: Any, sizes: tuple[int, ...], labels: str) -> None:
    """Of a task that predicts several tensors, or of one that is no classification, Triton could not count classes."""
    output = TensorSpec("scene_0", ("batch", *sizes), "float32")
    manifest = manifest_of(exported.manifest, output, replace(SCENE, kind=kind))
    said = parsed(config_text(served_onnx(manifest, "x"), manifest))
    assert said.output[0].label_filename == labels
    assert said.parameters["labels.scene_0"].string_value == "scene_labels.txt"


@given(text=st.text())
def test_any_text_is_read_back(text: str) -> None:
    message = "".join(f"{line}\n" for line in lines((("name", text),)))
    assert message.count("\n") == 1
    assert parsed(message).name == text
    assert parsed(message.encode()).name == text


LETTER = st.characters(categories=["L", "Nl"])
LATER = st.characters(categories=["L", "Nl", "Nd", "Mn", "Mc", "Pc"])
IDENTIFIERS = st.builds(
    lambda first, more: unicodedata.normalize("NFKC", first + more), LETTER, st.text(LATER, max_size=11)
)
"""Most of them are what a task may be called, see `gd.Task`."""


@given(name=IDENTIFIERS.filter(str.isidentifier), classes=st.lists(st.text(), min_size=2, unique=True))
def test_any_task_is_read_back(exported: Bundle, name: str, classes: list[str]) -> None:
    """Names of tasks may be in any script; names of classes may be anything: the file alone holds them."""
    try:
        task = gd.Task(name, "classification", tuple(classes))
    except InputError:  # a keyword, or "shared"
        return
    output = TensorSpec(name, ("batch", len(classes)), "float32")
    manifest = manifest_of(exported.manifest, output, task)
    (said,) = parsed(config_text(served_onnx(manifest, "x"), manifest)).output
    assert (said.name, list(said.dims), said.label_filename) == (name, [len(classes)], f"{name}_labels.txt")


@pytest.mark.usefixtures("quick_export")
def test_class_names_are_handed_on_as_they_are(thin: gd.Collapsed, tmp_path: Path) -> None:
    """Triton takes the file line by line (src/label_provider.cc of its core) and splits at nothing but line feeds."""
    scene = replace(SCENE, classes=('"quoted"', "back\\slash"))
    parts = replace(PARTS, classes=(" spaces ", "größe 𝄞 #", "{"))
    bundle = write_bundle(thin, ModelInfo((scene, parts), INPUT), tmp_path / "bundle")
    model = write_triton(bundle, tmp_path / "out", "rooms")
    for task in (scene, parts):
        read = (model / f"{task.name}_labels.txt").read_bytes().decode().split("\n")
        assert tuple(read[:-1]) == task.classes
        assert read[-1] == ""


def test_what_stands_between_quotes() -> None:
    assert quoted('a"b\\c\n\x85é') == '"a\\"b\\\\c\\012\\302\\205é"'


def test_notes_are_comments(exported: Bundle) -> None:
    served = Served("x", "onnxruntime_onnx", (8, 8), (IMAGE,), exported.manifest.outputs, notes=("Two\nlines",))
    text = config_text(served, exported.manifest)
    assert text.startswith('# Written by gatedeploy.\n# Two lines\nname: "x"\n')
    assert list(parsed(text).dynamic_batching.preferred_batch_size) == [8]
