import collections
import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import gatedeploy as gd
from gatedeploy.artifact import ModelInfo
from gatedeploy.errors import CheckError, GatedeployError, InputError
from gatedeploy.exporters import Bundle, export_onnx, to_onnx
from gatedeploy.parity import FLOAT32, compare
from gatedeploy.program import flat_predictions
from gatedeploy.runners.in_onnxruntime import OnnxRuntimeRunner
from tests.exporters.networks import INPUT, TwoHeads, collapsed, example


def model_of(path: Path) -> Any:
    return onnx.load(str(path))


def operators(path: Path) -> dict[str, int]:
    return dict(collections.Counter(node.op_type for node in model_of(path).graph.node))


def constant(path: Path, name: str) -> list[float]:
    (found,) = (tensor for tensor in model_of(path).graph.initializer if tensor.name == name)
    values: list[float] = onnx.numpy_helper.to_array(found).tolist()
    return values


def shapes(values: Any) -> dict[str, list[Any]]:
    return {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}


def info_of(net: gd.Collapsed) -> ModelInfo:
    return ModelInfo(tuple(gd.Task(name) for name in net.program.outputs), net.program.input)


class Small(nn.Module):
    """One convolution, and whatever `answer` makes of its result."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3)

    def forward(self, image: Tensor) -> Any:
        return self.answer(self.layer(image))

    def answer(self, features: Tensor) -> Any:
        return {"depth": features}


SMALL = ModelInfo((gd.Task("depth"),), INPUT)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_onnx_equals_torch(thin: gd.Collapsed, exported: Bundle, batch: int) -> None:
    pictures = torch.randn(batch, *INPUT.shape)
    with OnnxRuntimeRunner(exported.model) as runner, torch.no_grad():
        compare(thin(pictures), runner.infer({"image": pictures.numpy()}), FLOAT32).check("the ONNX file")


def test_input_and_outputs_carry_their_names_and_a_free_batch(exported: Bundle) -> None:
    graph = model_of(exported.model).graph
    assert shapes(graph.input) == {"image": ["batch", 3, 8, 8]}
    assert shapes(graph.output) == {"scene": ["batch", 2], "parts": ["batch", 3, 8, 8]}
    assert {v.type.tensor_type.elem_type for v in (*graph.input, *graph.output)} == {onnx.TensorProto.FLOAT}


def test_the_file_describes_itself(exported: Bundle) -> None:
    model = model_of(exported.model)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert (model.producer_name, model.producer_version) == ("gatedeploy", gd.__version__)
    assert metadata["gatedeploy.version"] == "1"
    assert json.loads(metadata["gatedeploy.tasks"]) == [
        {"name": "scene", "kind": "classification", "classes": ["kitchen", "street"]},
        {"name": "parts", "kind": "segmentation", "classes": ["sky", "road", "tree"]},
    ]
    about = json.loads(metadata["gatedeploy.input"])
    assert (about["mean"], about["std"]) == ([0.5, 0.4, 0.3], [0.2, 0.25, 0.3])
    assert (about["layout"], about["pixel_scale"], about["height"]) == ("NCHW", 255, 8)


def test_nodes_are_called_after_their_layers(thin: gd.Collapsed, exported: Bundle) -> None:
    graph = model_of(exported.model).graph
    layers = {node.name.removesuffix("/Conv") for node in graph.node if node.op_type == "Conv"}
    assert layers == {name for name, part in thin.network.named_modules() if isinstance(part, nn.Conv2d)}
    names = [node.name for node in graph.node]
    assert len(set(names)) == len(names)


def test_the_file_holds_plain_operators_and_none_of_the_exporters_notes(exported: Bundle) -> None:
    model = model_of(exported.model)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 20)]
    assert not model.functions
    assert "Constant" not in operators(exported.model)
    content = exported.model.read_bytes()
    assert b"site-packages" not in content
    assert b"pkg.torch" not in content


def test_all_shared_is_one_branch_and_nothing_else(tmp_path: Path) -> None:
    # By hand: a convolution and a ReLU for each layer, the norm folded, then the heads. A resize knows its factors.
    shared = collapsed(chosen=0.0)
    path = tmp_path / "shared.onnx"
    export_onnx(shared, info_of(shared), path)
    assert operators(path) == {"Conv": 3, "Relu": 2, "ReduceMean": 1, "Gemm": 1, "Resize": 1}
    (resize,) = (node for node in model_of(path).graph.node if node.op_type == "Resize")
    assert constant(path, resize.input[2]) == [1, 1, 2, 2]
    with OnnxRuntimeRunner(path) as runner, torch.no_grad():
        compare(shared(example(3)), runner.infer({"image": example(3).numpy()}), FLOAT32).check("the ONNX file")


def test_nested_predictions_are_numbered_and_the_exporter_is_silent(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    nested = collapsed(heads={"maps": TwoHeads()})
    capfd.readouterr()
    export_onnx(nested, info_of(nested), tmp_path / "nested.onnx")
    assert capfd.readouterr() == ("", "")
    pictures = example(3)
    with OnnxRuntimeRunner(tmp_path / "nested.onnx") as runner, torch.no_grad():
        assert [spec.name for spec in runner.outputs] == ["maps_0", "maps_1"]
        got = runner.infer({"image": pictures.numpy()})
        compare(flat_predictions(nested(pictures)), got, FLOAT32).check("the ONNX file")


class Colliding(Small):
    """Tasks called as operators, weights and other values are, twice the same tensor, and the picture itself."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.full((4, 1, 1), 3.0))

    def forward(self, image: Tensor) -> Any:
        features = self.layer(image).relu()
        scaled = features * self.gain
        return {"conv2d": scaled, "relu": features + 1, "gain": features * 2, "again": scaled, "same": image}


def test_names_of_tasks_collide_with_nothing(tmp_path: Path) -> None:
    net = Colliding().train()
    info = ModelInfo(tuple(gd.Task(name) for name in ("conv2d", "relu", "gain", "again", "same")), INPUT)
    export_onnx(net, info, tmp_path / "net.onnx")
    assert net.training, "the mode is put back"
    assert net.layer.training
    pictures = example(5)
    with OnnxRuntimeRunner(tmp_path / "net.onnx") as runner, torch.no_grad():
        compare(net(pictures), runner.infer({"image": pictures.numpy()}), FLOAT32).check("the ONNX file")


def test_a_network_in_float64_leaves_as_float32(tmp_path: Path) -> None:
    net = Small().double()
    export_onnx(net, SMALL, tmp_path / "net.onnx")
    assert net.layer.weight.dtype == torch.float64, "the user's network stays as it is"
    with OnnxRuntimeRunner(tmp_path / "net.onnx") as runner, torch.no_grad():
        assert {spec.dtype for spec in (*runner.inputs, *runner.outputs)} == {"float32"}
        got = runner.infer({"image": example().numpy()})
        compare(net(example().double()), got, FLOAT32).check("the ONNX file")


def test_large_weights_stand_in_one_file_beside(
    thin: gd.Collapsed, exported: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnx_ir

    monkeypatch.setattr(to_onnx, "EXTERNAL_DATA_ABOVE", 100)
    to_onnx.write_model(onnx_ir.load(exported.model), tmp_path / "net.onnx")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["net.onnx", "net.onnx.data"]
    with OnnxRuntimeRunner(tmp_path / "net.onnx") as runner, torch.no_grad():
        compare(thin(example()), runner.infer({"image": example().numpy()}), FLOAT32).check("the ONNX file")


class Bessel(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return torch.special.bessel_j0(features)


class WithBessel(Small):
    def __init__(self) -> None:
        super().__init__()
        self.odd = nn.Sequential(nn.ReLU(), Bessel())

    def answer(self, features: Tensor) -> Any:
        return {"depth": self.odd(features)}


def test_an_operator_without_onnx_form_is_named_with_its_layer(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"layer 'odd.1': ONNX has no form of the operator \w+::bessel_j0; replace"):
        export_onnx(WithBessel(), SMALL, tmp_path / "net.onnx")
    assert not any(tmp_path.iterdir())


def test_an_operator_outside_of_layers_is_placed_by_the_layer_before(tmp_path: Path) -> None:
    net = Small()
    net.answer = lambda features: {"depth": torch.special.bessel_j0(features)}  # type: ignore[method-assign]
    with pytest.raises(InputError, match="after layer 'layer': ONNX has no form of the operator"):
        export_onnx(net, SMALL, tmp_path / "net.onnx")


class Gated(Small):
    def __init__(self) -> None:
        super().__init__()
        self.gate = gd.ChannelGate(4)

    def answer(self, features: Tensor) -> Any:
        return {"depth": self.gate(features, -features)}


def test_gates_are_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gatedeploy::select; collapse the network first, or write its gates with"):
        export_onnx(Gated(), SMALL, tmp_path / "net.onnx")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda x: x, "the network returns a Tensor; expected a dict of predictions by task"),
        (lambda x: {"depth": x, "scale": 3}, "prediction 'scale' is 3; expected a tensor"),
        (lambda x: {"depth": ()}, "task 'depth' predicts nothing"),
        (lambda x: {"image": x}, "the input and a task are both called 'image'; rename one of them"),
        (lambda x: {"a": (x, x + 1), "a_1": x}, "two outputs would be called 'a_1'; rename a task"),
        (lambda x: {"depth": x if x.sum() > 0 else -x}, r"Small cannot be exported for pictures of \(3, 8, 8\) with"),
    ],
)
def test_what_is_no_network_of_tasks_is_refused(tmp_path: Path, answer: Any, message: str) -> None:
    net = Small()
    net.answer = answer  # type: ignore[method-assign]
    with pytest.raises(InputError, match=message):
        export_onnx(net, SMALL, tmp_path / "net.onnx")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda x: {"depth": x.argmax(1)}, "prediction 'depth' is INT64; expected float32. Leave what follows it"),
        (lambda x: {"depth": x.flatten(0, 1)}, r"prediction 'depth' has the shape \(4\*batch, 6, 6\); expected one"),
    ],
)
def test_predictions_are_float32_and_one_per_picture(tmp_path: Path, answer: Any, message: str) -> None:
    net = Small()
    net.answer = answer  # type: ignore[method-assign]
    with pytest.raises(InputError, match=message):
        export_onnx(net, SMALL, tmp_path / "net.onnx")


class Shapes(Small):
    """Reads its sizes from its input, resizes by odd factors, and casts to the type that it has."""

    def answer(self, features: Tensor) -> Any:
        batch, channels, height, width = features.shape
        pixels = features.reshape(batch, channels, height * width).transpose(1, 2).to(torch.float32)
        odd = nn.functional.interpolate(features, (7, 5), mode="bilinear", align_corners=True)
        return {"pixels": pixels, "odd": odd, "even": nn.functional.interpolate(features, scale_factor=0.5)}


def test_sizes_are_constants_where_they_are_known(tmp_path: Path) -> None:
    net = Shapes()
    path = tmp_path / "net.onnx"
    export_onnx(net, ModelInfo((), INPUT), path)
    nodes = {node.op_type: node for node in model_of(path).graph.node}
    assert constant(path, nodes["Reshape"].input[1]) == [-1, 4, 36]
    assert "Cast" not in nodes
    # By hand: 6 → 7 is no factor of float32, so that resize goes on computing its sizes; 6 → 3 is.
    resizes = [node for node in model_of(path).graph.node if node.op_type == "Resize"]
    assert sorted(len(node.input) for node in resizes) == [3, 4]
    with OnnxRuntimeRunner(path) as runner, torch.no_grad():
        compare(net(example(3)), runner.infer({"image": example(3).numpy()}), FLOAT32).check("the ONNX file")


def test_a_full_disk_leaves_nothing_behind(exported: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnx_ir

    def full(model: Any, path: Path, **options: Any) -> None:
        Path(path).write_bytes(b"half")
        path.with_name("model.onnx.data").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    model = onnx_ir.load(exported.model)
    monkeypatch.setattr(to_onnx, "EXTERNAL_DATA_ABOVE", 100)
    monkeypatch.setattr(onnx_ir, "save", full)
    with pytest.raises(GatedeployError, match=r"model.onnx: could not be written: No space left on device"):
        to_onnx.write_model(model, tmp_path / "model.onnx")
    assert not any(tmp_path.iterdir())


def test_what_the_checker_refuses_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, full_check: bool) -> None:
        assert full_check
        raise onnx.checker.ValidationError("no such thing")

    monkeypatch.setattr(onnx.checker, "check_model", refuse)
    with pytest.raises(CheckError, match=r"out\.onnx: not valid ONNX: no such thing"):
        export_onnx(Small(), SMALL, tmp_path / "out.onnx")
    assert not any(tmp_path.iterdir())


def test_what_is_no_onnx_is_told(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(np.random.default_rng(0).bytes(100))
    with pytest.raises(CheckError, match="not valid ONNX"):
        to_onnx.check_onnx(tmp_path / "model.onnx")
