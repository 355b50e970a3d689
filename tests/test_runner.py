import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from gatedeploy.errors import GatedeployError, InputError, MissingExtraError
from gatedeploy.program import flat_predictions
from gatedeploy.runners.base import Runner, TensorSpec, check_feed
from gatedeploy.runners.in_onnxruntime import OnnxRuntimeRunner
from gatedeploy.runners.in_openvino import OpenVinoRunner
from gatedeploy.runners.in_torch import TorchRunner
from gatedeploy.specs import InputSpec

SPEC = InputSpec(3, 4, 5)


class Doubled(nn.Module):
    """Twice the picture, and its sums."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(2.0))
        self.dropout = nn.Dropout()

    def forward(self, image: Tensor) -> Any:
        return {"twice": self.dropout(image * self.factor), "sums": (image.sum((2, 3)), image.sum((1, 2, 3)))}


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`twice` = picture + picture, written by hand."""
    shape = ["batch", *SPEC.shape]
    graph = helper.make_graph(
        [helper.make_node("Add", ["image", "image"], ["twice"])],
        "hand",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("twice", TensorProto.FLOAT, shape)],
    )
    path = tmp_path_factory.mktemp("hand") / "hand.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), str(path))
    return path


@pytest.fixture(params=["torch", "onnxruntime", "openvino"])
def runner(request: pytest.FixtureRequest, onnx_file: Path) -> Runner:
    if request.param == "torch":
        return TorchRunner(Doubled(), SPEC)
    kind = OnnxRuntimeRunner if request.param == "onnxruntime" else OpenVinoRunner
    return kind(onnx_file, threads=1)


def picture(batch: int = 2) -> Any:
    return np.random.default_rng(batch).standard_normal((batch, *SPEC.shape)).astype(np.float32)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_a_runner_answers(runner: Runner, batch: int) -> None:
    image = picture(batch)
    with runner as opened:
        assert opened is runner
        assert opened.inputs == (TensorSpec("image", ("batch", 3, 4, 5), "float32"),)
        assert opened.outputs[0] == TensorSpec("twice", ("batch", 3, 4, 5), "float32")
        answer = opened.infer({"image": image})
    assert list(answer) == [spec.name for spec in runner.outputs]
    assert np.array_equal(answer["twice"], 2 * image)


def test_a_closed_runner_says_so(runner: Runner) -> None:
    runner.close()
    runner.close()
    with pytest.raises(InputError, match=f"this {runner.name} runner is closed; open another"):
        runner.infer({"image": picture()})


@pytest.mark.parametrize(
    ("feed", "message"),
    [
        ({"imgae": picture()}, "there is no input 'imgae'; this network takes image; did you mean 'image'?"),
        ({}, r"input 'image' is missing; expected float32 \(batch, 3, 4, 5\)"),
        (picture(), "got a ndarray; expected a dict of arrays by input name: image"),
        ({"image": torch.zeros(1, 3, 4, 5)}, "input 'image': got a Tensor, expected a numpy array of float32"),
        ({"image": picture().astype(np.float64)}, "got float64, expected float32; .astype.'float32'. makes it so"),
        ({"image": picture().astype(np.uint8)}, "got uint8, expected float32; 8-bit pixels are normalised first"),
        ({"image": picture()[0]}, r"got shape \(3, 4, 5\), expected float32 .*; array\[None\] adds the batch axis"),
        ({"image": picture()[0, 0]}, r"input 'image': got shape \(4, 5\), expected float32 \(batch, 3, 4, 5\)$"),
        ({"image": picture()[:0]}, r"input 'image': batch 0, expected at least 1: got \(0, 3, 4, 5\)"),
        ({"image": picture()[:, :1]}, r"input 'image': channels 1, expected 3: got \(2, 1, 4, 5\), expected float32"),
        ({"image": picture()[:, :, :2]}, "input 'image': height 2, expected 4"),
        ({"image": picture()[..., :2]}, "input 'image': width 2, expected 5"),
        ({"image": picture().transpose(0, 2, 3, 1)}, r"channels 4, .*; channels come first: array.transpose"),
    ],
)
def test_feeds_that_do_not_fit_are_explained(runner: Runner, feed: Any, message: str) -> None:
    with runner, pytest.raises(InputError, match=message):
        runner.infer(feed)


def test_axes_of_other_shapes_are_numbered() -> None:
    with pytest.raises(InputError, match="input 'ids': axis 1 3, expected 4"):
        check_feed({"ids": np.zeros((1, 3), dtype=np.int64)}, [TensorSpec("ids", ("batch", 4), "int64")])


@pytest.mark.filterwarnings("error")
def test_arrays_of_any_memory_layout_are_taken(runner: Runner) -> None:
    frozen = picture()
    frozen.flags.writeable = False
    with runner:
        for image in (frozen, picture()[:, :, ::-1], np.asfortranarray(picture())):
            before = image.copy()
            assert np.array_equal(runner.infer({"image": image})["twice"], 2 * image)
            assert np.array_equal(image, before)


def test_contiguous_arrays_are_not_copied() -> None:
    class Same(nn.Module):
        def forward(self, image: Tensor) -> Any:
            return {"same": image}

    image = picture()
    with TorchRunner(Same(), SPEC) as runner:
        assert np.shares_memory(runner.infer({"image": image})["same"], image)


def test_torch_runs_in_evaluation_mode_and_numbers_nested_predictions() -> None:
    with TorchRunner(Doubled().train(), SPEC, name="mine") as runner:
        assert runner.name == "mine"
        assert [(spec.name, spec.shape) for spec in runner.outputs[1:]] == [
            ("sums_0", ("batch", 3)),
            ("sums_1", ("batch",)),
        ]
        answer = runner.infer({"image": picture(1)})
    assert np.allclose(answer["sums_1"], picture(1).sum((1, 2, 3)), atol=1e-5)


def test_torch_threads_are_those_asked_for_until_the_end() -> None:
    before = torch.get_num_threads()
    seen = []

    class Counting(nn.Module):
        def forward(self, image: Tensor) -> Any:
            seen.append(torch.get_num_threads())
            return {"same": image}

    with TorchRunner(Counting(), SPEC, threads=2) as two, TorchRunner(Counting(), SPEC, threads=3) as three:
        for runner in (two, three, two):
            runner.infer({"image": picture()})
    assert seen[2:] == [2, 3, 2]
    assert torch.get_num_threads() == before
    with pytest.raises(InputError, match="threads must be at least 1, got 0"):
        TorchRunner(Counting(), SPEC, threads=0)


def test_a_network_of_another_size_is_told_and_threads_are_put_back() -> None:
    before = torch.get_num_threads()

    class Fixed(nn.Module):
        def forward(self, image: Tensor) -> Any:
            return {"depth": image.view(2, 7)}

    with pytest.raises(GatedeployError, match=r"torch failed on pictures \(2, 3, 4, 5\): shape '\[2, 7\]' is invalid"):
        TorchRunner(Fixed(), SPEC, threads=before + 1)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        ([1], "the network returns a list; expected a dict of predictions by task"),
        ({"a": (1, 2), "a_0": 3}, "two outputs would be called 'a_0'; rename a task"),
        ({"a": []}, "task 'a' predicts nothing"),
    ],
)
def test_predictions_without_a_name_of_their_own(predictions: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        flat_predictions(predictions)


def test_a_prediction_that_is_no_tensor_is_told() -> None:
    class Number(nn.Module):
        def forward(self, image: Tensor) -> Any:
            return {"count": 3}

    with pytest.raises(InputError, match="prediction 'count' is a int; expected a tensor"):
        TorchRunner(Number(), SPEC)


def test_names_of_nested_predictions() -> None:
    assert flat_predictions({"a": 1, "b": (2, {"c": 3}), "d": [4]}) == {"a": 1, "b_0": 2, "b_1": 3, "d_0": 4}


def test_onnxruntime_states_what_runs_it(onnx_file: Path) -> None:
    with OnnxRuntimeRunner(onnx_file, threads=2) as runner:
        assert (runner.threads, runner.providers) == (2, ("CPUExecutionProvider",))


def test_onnxruntime_without_the_back_end_says_so(onnx_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    with pytest.raises(InputError, match=r"hand.onnx: the installed onnxruntime has no CUDAExecutionProvider; it has"):
        OnnxRuntimeRunner(onnx_file, providers=["CUDAExecutionProvider", "CPUExecutionProvider"])
    # A GPU build without its libraries offers the back end and then silently falls back.
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    with (
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),
        pytest.raises(InputError, match="CUDAExecutionProvider could not be used here, onnxruntime fell back to CPU"),
    ):
        OnnxRuntimeRunner(onnx_file, providers=["CUDAExecutionProvider", "CPUExecutionProvider"])


def test_onnxruntime_missing_or_file_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"gone.onnx: no such file; expected an ONNX file"):
        OnnxRuntimeRunner(tmp_path / "gone.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"running an ONNX file needs onnxruntime.*'gatedeploy\[cpu\]'"):
        OnnxRuntimeRunner(tmp_path / "gone.onnx")


def test_openvino_compiled_for_one_batch_size_takes_no_other(onnx_file: Path) -> None:
    with OpenVinoRunner(onnx_file, threads=1, batch=2) as runner:
        assert runner.inputs == (TensorSpec("image", (2, 3, 4, 5), "float32"),)
        first = runner.infer({"image": picture()})["twice"]
        runner.infer({"image": picture() + 1})
        assert np.array_equal(first, 2 * picture())  # an answer is the caller's own
        with pytest.raises(InputError, match="input 'image': batch 1, expected 2"):
            runner.infer({"image": picture(1)})


def test_openvino_computes_in_float32(tmp_path: Path) -> None:
    """It rounds to bfloat16 (2⁻⁹ of a number) by itself, on processors that have instructions for it alone."""
    weight = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [8, 64]) for name in ("x", "y")]
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "hand", ports[:1], ports[1:], [numpy_helper.from_array(weight, "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path / "m.onnx")
    rows = np.random.default_rng(1).standard_normal((8, 64)).astype(np.float32)
    expected = rows.astype(np.float64) @ weight
    with OpenVinoRunner(tmp_path / "m.onnx", threads=1) as runner:
        found = runner.infer({"x": rows})["y"]
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


def test_openvino_missing_file_missing_or_no_onnx_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"gone.onnx: no such file; expected an ONNX file"):
        OpenVinoRunner(tmp_path / "gone.onnx")
    (tmp_path / "cut.onnx").write_bytes(b"\x08\x0a\x12\xff")
    with pytest.raises(InputError, match=r"cut.onnx: openvino cannot load it \(.+\); write or copy it again"):
        OpenVinoRunner(tmp_path / "cut.onnx")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(
        MissingExtraError, match=r"running a network in OpenVINO needs openvino.*'gatedeploy\[openvino\]'"
    ):
        OpenVinoRunner(tmp_path / "gone.onnx")
