import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gatedeploy as gd
from gatedeploy.artifact import ModelInfo
from gatedeploy.errors import CheckError, InputError
from gatedeploy.exporters import Bundle, open_runner, verify_bundle, write_bundle
from gatedeploy.parity import FLOAT32, compare
from gatedeploy.runners.in_onnxruntime import OnnxRuntimeRunner
from gatedeploy.runners.in_torch import TorchRunner
from tests.exporters.networks import INFO, INPUT, SceneHead, collapsed, example, gated


def test_every_kind_of_file_answers_alike(thin: gd.Collapsed, exported: Bundle, tmp_path: Path) -> None:
    file, checkpoint, alone = tmp_path / "c.safetensors", tmp_path / "checkpoint.pt", tmp_path / "alone.onnx"
    gd.save(thin, file, info=INFO)
    gd.save(gated(), checkpoint, info=INFO)
    shutil.copy(exported.model, alone)
    feed = {"image": example(3).numpy()}
    answers = []
    for path, runtime, kind in (
        (file, "torch", TorchRunner),
        (checkpoint, "torch", TorchRunner),
        (exported.path, "onnxruntime", OnnxRuntimeRunner),
        (alone, "onnxruntime", OnnxRuntimeRunner),
    ):
        with open_runner(str(path), runtime, threads=1) as runner:
            assert isinstance(runner, kind)
            assert [spec.shape for spec in runner.inputs] == [("batch", 3, 8, 8)]
            assert [spec.name for spec in runner.outputs] == ["scene", "parts"]
            answers.append(runner.infer(feed))
    for answer in answers[1:]:
        compare(answers[0], answer, FLOAT32).check("another runtime")


def test_a_damaged_bundle_is_not_opened(bundle: Bundle) -> None:
    with bundle.model.open("ab") as file:
        file.write(b"\0")
    with pytest.raises(CheckError, match=r"model.onnx has"):
        open_runner(bundle.path)


def test_runtimes_that_are_not_there(exported: Bundle) -> None:
    with pytest.raises(
        InputError, match=r"there is no runtime 'onnxruntim'; known are torch, .*; did you mean 'onnxrun"
    ):
        open_runner(exported.path, "onnxruntim")
    with pytest.raises(InputError, match="there is no runtime 3; known are torch, onnxruntime"):
        open_runner(exported.path, 3)  # type: ignore[arg-type]
    for runtime, asked in (("aoti", "aoti"), ("tensorrt", "trt"), ("executorch", "executorch")):
        with pytest.raises(
            InputError, match=f"holds no engine for {runtime}; it holds onnx: export it with --format {asked}"
        ):
            open_runner(exported.path, runtime)
        with pytest.raises(InputError, match=f"model.onnx: {runtime} runs the engines of bundles, and no ONNX file"):
            open_runner(exported.model, runtime)
    with pytest.raises(InputError, match="the installed onnxruntime has no CUDAExecutionProvider; it has"):
        open_runner(exported.path, "onnxruntime-cuda")


@pytest.mark.parametrize("threads", ["2", 2.5, True, [1]])
def test_threads_that_are_no_number(threads: Any, thin: gd.Collapsed, exported: Bundle, tmp_path: Path) -> None:
    gd.save(thin, tmp_path / "c.safetensors", info=INFO)
    bundle, file = exported.path, tmp_path / "c.safetensors"
    for path, runtime in ((bundle, "onnxruntime"), (bundle, "openvino"), (file, "torch")):
        with pytest.raises(InputError, match="threads: expected int or None, got "):
            open_runner(path, runtime, threads=threads)


def test_files_that_a_runtime_cannot_run(exported: Bundle, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: no such file or folder; expected a bundle, an ONNX file or"):
        open_runner(tmp_path / "nowhere")
    for path in (exported.path, exported.model):
        with pytest.raises(InputError, match=r"PyTorch runs no ONNX; open the collapsed.safetensors it was made of"):
            open_runner(path, "torch")
    (tmp_path / "c.safetensors").write_bytes(b"nothing")
    with pytest.raises(
        InputError,
        match=r"onnxruntime runs bundles and ONNX files; .*export this first: gatedeploy export .*c.safetensors",
    ):
        open_runner(tmp_path / "c.safetensors")
    with pytest.raises(InputError, match=r"c.safetensors: a text file; expected a network"):
        open_runner(tmp_path / "c.safetensors", "torch")
    (tmp_path / "m.onnx").write_bytes(np.zeros(10).tobytes())
    with pytest.raises(InputError, match=r"m.onnx: onnxruntime cannot load it"):
        open_runner(tmp_path / "m.onnx")


def test_names_in_letters_of_any_script(tmp_path: Path) -> None:
    task = gd.Task("größe", "classification", ("klein", "groß"))
    bundle = write_bundle(collapsed(heads={"größe": SceneHead()}), ModelInfo((task,), INPUT), tmp_path / "bündel")
    assert (bundle.path / "labels/gr-f6--df-e.txt").read_text("utf-8") == "klein\ngroß\n"
    assert "its position is the line in `labels/gr-f6--df-e.txt`" in (bundle.path / "README.md").read_text("utf-8")
    assert verify_bundle(bundle.path).parity.holds
    with open_runner(bundle.path) as runner:
        assert set(runner.infer({"image": np.zeros((1, *INPUT.shape), np.float32)})) == {"größe"}
