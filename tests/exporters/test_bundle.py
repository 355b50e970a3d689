import errno
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gatedeploy as gd
from gatedeploy.artifact import ModelInfo
from gatedeploy.errors import CheckError, GatedeployError, InputError, MissingExtraError
from gatedeploy.exporters import Bundle, export, open_runner, read_bundle, verify_bundle, write_bundle
from gatedeploy.exporters import bundle as bundle_module
from gatedeploy.exporters.engine_options import EngineOptions
from gatedeploy.files import sha256
from gatedeploy.graph.cost import cost
from tests.exporters.networks import INFO, INPUT, PARTS, SCENE


def document(path: Path) -> Any:
    return json.loads((path / "manifest.json").read_text())


def test_a_bundle_holds_what_deploying_takes(exported: Bundle, thin: gd.Collapsed) -> None:
    files = {str(file.relative_to(exported.path)) for file in exported.path.rglob("*") if file.is_file()}
    assert files == {"model.onnx", "manifest.json", "README.md", "labels/scene.txt", "labels/parts.txt"}
    assert (exported.path / "labels/parts.txt").read_text() == "sky\nroad\ntree\n"
    manifest = exported.manifest
    counted = cost(thin.program)
    assert (manifest.costs.macs, manifest.costs.params) == (counted.macs, counted.params)
    assert manifest.costs.size_bytes == exported.model.stat().st_size
    assert thin.report is not None
    assert manifest.costs.gated == {"macs": thin.report.gated.macs, "params": thin.report.gated.params}
    assert manifest.input == INPUT
    assert [(task.name, task.kind, task.classes) for task in manifest.tasks] == [
        (task.name, task.kind, task.classes) for task in (SCENE, PARTS)
    ]
    assert manifest.metrics == {"scene": {"accuracy": 0.75, "loss": None}}, "JSON knows no NaN"


def test_the_manifest_says_it_in_json(exported: Bundle) -> None:
    said = document(exported.path)
    assert (said["format"], said["version"], said["precision"]) == ("gatedeploy.bundle", 3, "fp32")
    (image,) = said["inputs"]
    assert (image["name"], image["shape"], image["dtype"]) == ("image", ["batch", 3, 8, 8], "float32")
    assert (image["layout"], image["preprocessing"]["mean"]) == ("NCHW", [0.5, 0.4, 0.3])
    assert [(output["name"], output["shape"], output["task"]) for output in said["outputs"]] == [
        ("scene", ["batch", 2], "scene"),
        ("parts", ["batch", 3, 8, 8], "parts"),
    ]
    assert said["tasks"][1]["labels"] == "labels/parts.txt"
    assert said["tools"]["torch"] == torch.__version__
    assert said["files"]["model.onnx"]["sha256"] == sha256(exported.model)
    assert str(exported.path) not in json.dumps(said)


def test_the_figures_of_its_verification(exported: Bundle) -> None:
    proof = exported.manifest.verification
    assert list(proof.error) == ["1", "3"]
    assert all(0 <= error < 1e-5 for errors in proof.error.values() for error in errors.values())
    assert set(proof.error["3"]) == {"scene", "parts"}
    check = verify_bundle(exported.path, threads=1)
    files = [file for file in exported.path.rglob("*") if file.is_file()]
    assert (check.files, check.size_bytes) == (len(files), sum(file.stat().st_size for file in files))
    assert max(check.parity.error.values()) < 1e-5


def test_the_readme_says_what_the_outputs_mean_and_its_example_runs(exported: Bundle) -> None:
    text = (exported.path / "README.md").read_text()
    assert "| `parts` | (batch, 3, 8, 8) | parts: one score per class and pixel" in text
    assert "`labels/scene.txt`" in text
    assert f"{exported.manifest.costs.macs:,} multiply-adds" in text
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(example.splitlines()) <= 12
    command = [sys.executable, "-W", "error", "-c", example]
    ran = subprocess.run(command, cwd=exported.path, capture_output=True, text=True, timeout=60, check=False)
    assert ran.stderr == ""
    assert [line.split(" ", 1)[0] for line in ran.stdout.splitlines()] == ["scene", "parts"]
    assert "(1, 3, 8, 8)" in ran.stdout


@pytest.mark.usefixtures("quick_export")
def test_export_takes_a_file_and_remembers_it(thin: gd.Collapsed, tmp_path: Path) -> None:
    file = tmp_path / "collapsed.safetensors"
    gd.save(thin, file, info=INFO)
    bundle = export(file, tmp_path / "deep" / "out")
    assert bundle.path == tmp_path / "deep" / "out"
    assert bundle.manifest.source == {"file": "collapsed.safetensors", "sha256": sha256(file)}
    assert bundle.manifest.tasks == (SCENE, PARTS)
    assert bundle.manifest.costs.gated["macs"] > bundle.manifest.costs.macs
    assert read_bundle(bundle.path) == bundle


@pytest.mark.usefixtures("quick_export")
def test_a_network_that_was_loaded_brings_its_tasks_and_preprocessing(thin: gd.Collapsed, tmp_path: Path) -> None:
    gd.save(thin, tmp_path / "1", info=INFO)
    loaded = gd.load(tmp_path / "1")
    assert isinstance(loaded, gd.Collapsed)
    gd.save(loaded.network, tmp_path / "2")
    for what in (loaded, tmp_path / "2"):
        bundle = export(what, tmp_path / "out")
        assert (bundle.manifest.tasks, bundle.manifest.input) == ((SCENE, PARTS), INPUT)
        assert (bundle.path / "labels" / "parts.txt").read_text() == "sky\nroad\ntree\n"
        assert bundle.manifest.metrics == {}
    with pytest.raises(InputError, match=r"expected a collapsed network, .*, or the file of one; got a Network"):
        export(loaded.network, tmp_path / "other")  # type: ignore[arg-type]


@pytest.mark.usefixtures("quick_export")
def test_a_network_alone_knows_only_the_names_of_its_tasks(thin: gd.Collapsed, tmp_path: Path) -> None:
    bundle = export(thin, tmp_path / "out")
    assert [(task.name, task.kind) for task in bundle.manifest.tasks] == [("scene", None), ("parts", None)]
    assert not (bundle.path / "labels").exists()
    assert bundle.manifest.source == {}


@pytest.mark.usefixtures("quick_export")
def test_a_bundle_is_replaced_by_the_next(thin: gd.Collapsed, bundle: Bundle) -> None:
    export(thin, bundle.path)
    assert not (bundle.path / "labels").exists()
    assert [file.name for file in bundle.path.parent.iterdir()] == ["bundle"]


@pytest.mark.usefixtures("quick_export")
@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"thesis.txt": "years of work"},
            "out: exists and is no bundle that could be replaced; choose another folder",
        ),
        ({"manifest.json": '{"name": "a web app"}'}, "is no bundle that could be replaced"),
    ],
)
def test_a_folder_of_the_users_is_left_alone(
    thin: gd.Collapsed, tmp_path: Path, files: dict[str, str], message: str
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name, text in files.items():
        (out / name).write_text(text)
    with pytest.raises(InputError, match=message):
        export(thin, out)
    assert {file.name: file.read_text() for file in out.iterdir()} == files


@pytest.mark.usefixtures("quick_export")
def test_what_the_user_put_into_a_bundle_is_not_lost(thin: gd.Collapsed, bundle: Bundle) -> None:
    (bundle.path / "labels" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds labels/notes.txt besides a bundle; move it, or choose another"):
        export(thin, bundle.path)
    assert (bundle.path / "labels" / "notes.txt").read_text() == "mine"


@pytest.mark.usefixtures("quick_export")
def test_a_bundle_whose_manifest_was_changed_is_not_replaced(thin: gd.Collapsed, bundle: Bundle) -> None:
    file = bundle.path / "manifest.json"
    file.write_text(changed := file.read_text().replace('"road"', '"Road"'))
    with pytest.raises(InputError, match=r"no bundle that could be replaced; choose another folder .*was changed"):
        export(thin, bundle.path)
    assert file.read_text() == changed


@pytest.mark.usefixtures("quick_export")
def test_a_link_and_a_file_are_not_replaced(thin: gd.Collapsed, bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(bundle.path)
    with pytest.raises(InputError, match="link: is a link; name the folder itself"):
        export(thin, tmp_path / "link")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="file: exists and is no bundle"):
        export(thin, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.usefixtures("quick_export")
@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("name", ["labels/parts.txt", "README.md", "manifest.json"])
@pytest.mark.parametrize("stop", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_stopped_half_way_nothing_changes(
    thin: gd.Collapsed,
    bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    existing: bool,
    name: str,
    stop: BaseException,
) -> None:
    out = bundle.path
    if not existing:
        shutil.rmtree(out)

    def write(file: Path, text: str) -> None:
        file.parent.mkdir(exist_ok=True)
        file.write_text(text[: len(text) // 2])
        if file.match(name):
            raise stop

    monkeypatch.setattr(bundle_module, "_write_text", write)
    with pytest.raises((GatedeployError, KeyboardInterrupt)) as raised:
        write_bundle(thin, INFO, out)
    if isinstance(stop, OSError):
        assert str(raised.value) == (
            f"{out}: could not be written: No space left on device; nothing was changed under this name. "
            "Next: make room"
        )
    assert [file.name for file in out.parent.iterdir()] == (["bundle"] if existing else [])
    if existing:
        assert read_bundle(out).manifest == bundle.manifest


@pytest.mark.usefixtures("quick_export")
def test_a_bundle_that_cannot_be_read_back_is_not_written(
    thin: gd.Collapsed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle_module, "manifest_to_json", lambda manifest: "{}")
    with pytest.raises(GatedeployError, match="manifest"):
        export(thin, tmp_path / "out")
    assert not any(tmp_path.iterdir())


@pytest.mark.usefixtures("quick_export")
def test_a_network_that_computes_something_else_is_not_written(thin: gd.Collapsed, tmp_path: Path) -> None:
    program = thin.program
    weights = {name: weight * 1.01 if name.endswith("weight") else weight for name, weight in program.weights.items()}
    other = gd.Collapsed(type(program)(program.graph, weights, program.trainable, program.input))
    with pytest.raises(CheckError, match=r"the ONNX network at batch size 1 differs in task '\w+' by .* of the output"):
        export(other, tmp_path / "out")
    broken = {
        name: weight * float("nan") if weight.is_floating_point() else weight
        for name, weight in program.weights.items()
    }
    other = gd.Collapsed(type(program)(program.graph, broken, program.trainable, program.input))
    with pytest.raises(CheckError, match="prediction 'scene' is not finite for a picture of noise"):
        export(other, tmp_path / "out")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"formats": ["onx"]}, "there is no format 'onx'; known are onnx, trt, .*; did you mean 'onnx'"),
        ({"formats": "onnx"}, r"formats: expected a list such as \['onnx', 'trt', .*\], got 'onnx'"),
        ({"formats": []}, "formats: expected a list"),
        ({"precision": "fp31"}, "there is no precision 'fp31'; known are fp32, tf32, fp16, .*; did you mean"),
        ({"precision": "tf32"}, r"tf32 is how GPUs multiply in an engine of TensorRT; ask for one \(--trt\), or"),
        ({"precision": "fp16"}, "fp16 is judged by the tasks' metrics on real pictures, and there are none: name the"),
        (
            {"precision": "int8", "formats": ["onnx", "aoti", "executorch"]},
            "aoti and executorch are written in fp32 alone; ask for int8 with other formats: onnx, trt, openvino",
        ),
        ({"formats": [3]}, "there is no format 3; known are onnx, trt"),
        ({"formats": [["onnx"]]}, r"there is no format \['onnx'\]; known are onnx, trt"),
        ({"formats": 3}, "formats: expected a list such as .*, got 3"),
        ({"precision": 8}, "there is no precision 8; known are fp32"),
        ({"info": "x"}, r"info: expected ModelInfo or None, got 'x' \(str\)"),
        ({"engine": 3}, r"engine: expected EngineOptions or None, got 3 \(int\)"),
        ({"reduction": {"max_drop": 3}}, r"reduction: expected PrecisionOptions or None, got {'max_drop': 3} \(dict\)"),
        ({"samples": 5}, r"samples: expected Samples or None, got 5 \(int\)"),
        (
            {"formats": ["aoti"], "engine": EngineOptions(shapes=((1,), (2, 3, 9, 8), (4,)))},
            "^--opt-shapes 2x3x9x8: the network takes 2x3x8x8, where the batch alone is free; say 2x3x8x8 or 2",
        ),
        ({"info": ModelInfo((SCENE,), INPUT)}, "the network predicts 'parts', of which its description knows nothing"),
        ({"info": ModelInfo((SCENE, PARTS), gd.InputSpec(3, 9, 8))}, "the network takes .*, its description says"),
        (
            {"info": ModelInfo((SCENE, gd.Task("parts", "segmentation", ("a", "b", "c\nd"))), INPUT)},
            r"task parts: class name 'c\\nd' does not fit on a line of its own",
        ),
    ],
)
def test_requests_that_cannot_be_met(thin: gd.Collapsed, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        export(thin, tmp_path / "out", **options)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("place", [3, None, b"out", True])
def test_a_place_that_is_none(thin: gd.Collapsed, place: Any) -> None:
    for call in (lambda: export(thin, place), lambda: open_runner(place), lambda: verify_bundle(place)):
        with pytest.raises(InputError, match="the path: expected str or Path, got "):
            call()


def test_verification_needs_a_runtime(thin: gd.Collapsed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"verifying an exported network needs onnxruntime.*gatedeploy\[cpu\]"):
        export(thin, tmp_path / "out")


@pytest.mark.usefixtures("quick_export")
def test_only_tasks_that_were_kept_are_described(exported: Bundle, thin: gd.Collapsed, tmp_path: Path) -> None:
    info = ModelInfo((gd.Task("gone"), PARTS, SCENE), INPUT, metrics={"gone": {"error": 1.0}, "parts": {"miou": 0.5}})
    bundle = write_bundle(thin, info, tmp_path / "out")
    assert [task.name for task in bundle.manifest.tasks] == ["scene", "parts"]
    assert bundle.manifest.metrics == {"parts": {"miou": 0.5}}
    assert np.isfinite(bundle.manifest.reference.outputs["parts"].projection)
