"""Reduced precision is judged by what tasks lose, and refused or mixed where that is too much."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import gatedeploy as gd
from gatedeploy.artifact import ModelInfo
from gatedeploy.errors import CheckError, InputError
from gatedeploy.exporters import bundle as bundle_module
from gatedeploy.exporters import export, read_bundle, verify_bundle
from gatedeploy.exporters.manifest import Reduction, largest
from gatedeploy.exporters.opening import open_runner
from gatedeploy.exporters.precision.int8 import quantised_nodes
from gatedeploy.exporters.precision.reduction import PrecisionOptions, mixed, reduce_precision
from gatedeploy.exporters.precision.samples import Headline, Metrics, Predict, Samples, drops
from gatedeploy.exporters.precision.surgery import run_model
from gatedeploy.exporters.precision.table import PRECISIONS
from gatedeploy.exporters.precision.verdict import Judge, Verdict
from gatedeploy.exporters.progress import untold
from gatedeploy.exporters.to_onnx import export_onnx
from gatedeploy.exporters.verification import Case, reference_of
from gatedeploy.runners.base import Array
from gatedeploy.runners.in_onnxruntime import OnnxRuntimeRunner
from gatedeploy.specs import InputSpec
from tests.exporters.nets import conv, kernels, onnx_net, pictures
from tests.exporters.networks import INPUT, PARTS, SCENE

SPEC = InputSpec(2, 4, 4)
HEADLINES = {"scores": Headline("error", lower_is_better=True)}


def samples_of(model: onnx.ModelProto, calibration: Sequence[Array] | None = None) -> Samples:
    """Judges by the distance from what the network answers in float32, plus one, so that percents mean something."""
    image = pictures(8)
    exact = run_model(model, {"image": image})["scores"]

    def measure(predict: Predict) -> Metrics:
        apart = np.linalg.norm(predict(image)["scores"] - exact) / np.linalg.norm(exact)
        return {"scores": {"error": 1 + float(apart)}}

    return Samples([image] if calibration is None else calibration, measure, HEADLINES, "made-up pictures", len(image))


def culprit() -> onnx.ModelProto:
    """Three layers. The middle one makes channels of ten thousand and of one, and the last one reads the small one.

    In int8 all channels of a feature map share a scale, so nothing of the small one is left.
    """
    weights = {
        "w1": kernels(4, 2, 1, 1, seed=1),
        "w2": kernels(4, 4, 1, 1, seed=2) * np.array([1e4, 1, 1, 1], np.float32).reshape(4, 1, 1, 1),
        "w3": kernels(3, 4, 1, 1, seed=3) * np.array([1e-6, 1, 1, 1], np.float32).reshape(1, 4, 1, 1),
    }
    nodes = [
        conv("first", "image", "a", "w1"),
        conv("middle", "a", "b", "w2"),
        conv("last", "b", "scores", "w3"),
    ]
    return onnx_net(nodes, weights, ["scores"], opset=20)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    onnx.save(culprit(), str(tmp_path / "model.onnx"))
    return tmp_path / "model.onnx"


def test_too_much_loss_is_refused_and_the_file_stays(model: Path) -> None:
    before = model.read_bytes()
    message = (
        r"int8, measured on 8 pictures of made-up pictures: scores loses \d+\.\d\d % \(error 1 → \d[\d.]*\)\. Refused, "
        r"for a task may lose 1 %\. To go on, keep the layers that err most in float32 \(--mixed\), or allow more "
        r"\(--max-drop\), or choose ranges otherwise \(--calibration entropy\)"
    )
    options = PrecisionOptions("min-max")
    with pytest.raises(CheckError, match=message):
        reduce_precision(model, SPEC, "int8", options, samples_of(culprit()), untold)
    assert model.read_bytes() == before
    assert [file.name for file in model.parent.iterdir()] == ["model.onnx"]


def test_the_layer_that_errs_most_is_found_and_stays_in_float32(model: Path) -> None:
    told: list[tuple[str, int, int]] = []
    options = PrecisionOptions("min-max", max_drop=3, mixed=True)
    found = reduce_precision(model, SPEC, "int8", options, samples_of(culprit()), lambda *step: told.append(step))
    assert found.kept == ("last",), "it reads the map whose small channels are rounded away"
    assert next(iter(found.layer_errors)) == "last"
    assert found.layer_errors["last"] > 10 * found.layer_errors["first"]
    assert set(found.layer_errors) == {"first", "middle", "last"}
    assert quantised_nodes(onnx.load(str(model))) == ["first", "middle"]
    assert found.lost["scores"] == pytest.approx(100 * (found.reduced["scores"]["error"] - 1))
    assert 0 < found.lost["scores"] <= 3
    assert [step for step in told if step[0] == "layer by layer"] == [("layer by layer", done, 3) for done in range(4)]
    assert [step for step in told if step[0] == "calibrating"] == [("calibrating", done, 8) for done in range(1, 9)]
    judged = [("judging fp32", 8, 8), ("judging int8", 8, 8), ("judging int8, 1 layers in fp32", 8, 8)]
    assert [step for step in told if step[0].startswith("judging")] == judged
    assert found.layers == 2


def test_float16_keeps_what_it_does_not_hold_in_float32(tmp_path: Path) -> None:
    """A hundred thousand is more than float16 has numbers for; bfloat16 has."""
    nodes = [
        conv("first", "image", "a", "large"),
        helper.make_node("Mul", ["a", "small"], ["b"], "mul"),
        conv("last", "b", "scores", "w"),
    ]
    weights = {"large": kernels(4, 2, 1, 1) * 1e5, "small": np.array(1e-5, np.float32), "w": kernels(3, 4, 1, 1)}
    for precision, kept in (("fp16", ("first", "mul")), ("bf16", ())):
        file = tmp_path / f"{precision}.onnx"
        onnx.save(onnx_net(nodes, weights, ["scores"]), str(file))
        samples = samples_of(onnx.load(str(file)))
        found = reduce_precision(file, SPEC, precision, PrecisionOptions(max_drop=2), samples, untold)
        assert found.kept == kept
        assert (found.calibration, found.layer_errors) == ("", {})


def test_the_error_of_every_layer_when_it_is_asked_for(model: Path) -> None:
    found = reduce_precision(model, SPEC, "fp16", PrecisionOptions(layers=True), samples_of(culprit()), untold)
    assert set(found.layer_errors) == {"first", "middle", "last"}
    # Rounding to eleven bits is off by at most 2⁻¹¹, and by half of that on average.
    assert all(1e-5 < error < 2e-3 for error in found.layer_errors.values())
    assert list(found.layer_errors.values()) == sorted(found.layer_errors.values(), reverse=True)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (np.where(np.arange(96).reshape(3, 2, 4, 4) == 70, np.nan, 1).astype(np.float32), "picture 6 to calibrate by"),
        (
            np.full((1, 2, 4, 4), np.inf, np.float32),
            "picture 4 to calibrate by holds NaN or infinity; mend it or leave",
        ),
        (np.zeros((1, 2, 4, 5), np.float32), r"float32 \(1, 2, 4, 5\); expected float32 \(batch, 2, 4, 4\)"),
        (np.zeros((1, 2, 4, 4)), r"a batch to calibrate by is float64 \(1, 2, 4, 4\); expected float32"),
    ],
)
def test_pictures_that_cannot_be_used(model: Path, batch: Array, message: str) -> None:
    samples = samples_of(culprit(), [pictures(4), batch])
    for precision in ("int8", "fp16"):
        with pytest.raises(InputError, match=f"made-up pictures: .*{message}"):
            reduce_precision(model, SPEC, precision, PrecisionOptions(), samples, untold)
    with pytest.raises(InputError, match="made-up pictures: no pictures to calibrate by"):
        reduce_precision(model, SPEC, "int8", PrecisionOptions(), samples_of(culprit(), []), untold)


def test_what_a_task_loses() -> None:
    headlines = {"depth": Headline("rmse", lower_is_better=True), "kind": Headline("accuracy", lower_is_better=False)}
    before = {"depth": {"rmse": 2.0}, "kind": {"accuracy": 0.8}}
    after = {"depth": {"rmse": 2.1}, "kind": {"accuracy": 0.6}}
    assert drops(headlines, before, after) == pytest.approx({"depth": 5.0, "kind": 25.0})
    assert drops(headlines, after, before) == pytest.approx({"depth": -100 / 21, "kind": -100 / 3})
    zero = {"depth": {"rmse": 0.0}, "kind": {"accuracy": 0.0}}
    assert drops(headlines, zero, zero) == {"depth": 0.0, "kind": 0.0}
    assert drops(headlines, zero, after) == {"depth": float("inf"), "kind": 0.0}, "whatever was perfect cannot lose"
    with pytest.raises(CheckError, match="task kind: accuracy was not measured"):
        drops(headlines, before, {"depth": {"rmse": 2.0}, "kind": {}})


def judged(*accuracies: float) -> Samples:
    """Judges the first network that it is given by the first figure, and so on; all others by the last."""
    figures = list(accuracies or (0.9,))
    image = np.random.default_rng(1).standard_normal((4, *INPUT.shape)).astype(np.float32)

    def measure(predict: Predict) -> Metrics:
        found = predict(image)
        assert set(found) == {"scene", "parts"}
        accuracy = figures.pop(0) if len(figures) > 1 else figures[0]
        return {"scene": {"accuracy": accuracy}, "parts": {"mean_iou": 0.5, "pixel_accuracy": 0.6}}

    headlines = {"scene": Headline("accuracy", False), "parts": Headline("mean_iou", False)}
    return Samples([image], measure, headlines, "noise", len(image))


def test_a_metric_that_is_no_number_and_judges_nothing_is_told_as_such(thin: gd.Collapsed, tmp_path: Path) -> None:
    def measure(predict: Predict) -> Metrics:
        found = judged().measure(predict)
        return {**found, "parts": {"mean_iou": 0.5, "of_no_pixel": float("nan"), "endless": float("inf")}}

    samples = dataclasses.replace(judged(), measure=measure)
    bundle = export(thin, tmp_path / "out", precision="fp16", info=ModelInfo((SCENE, PARTS), INPUT), samples=samples)
    said = json.loads((bundle.path / "manifest.json").read_text())["reduction"]
    assert said["float32"]["parts"] == {"mean_iou": 0.5, "of_no_pixel": None, "endless": None}
    read = read_bundle(bundle.path).manifest.reduction
    assert read is not None
    assert ["parts", "of_no_pixel", "nan", "nan"] in read.rows


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_drop": "1"}, r"max_drop: expected int or float, got '1' \(str\)"),
        ({"max_drop": float("inf")}, "a drop of at most inf %: expected 0 or more"),
        ({"max_drop": float("nan")}, "a drop of at most nan %"),
        ({"max_drop": -1}, "a drop of at most -1 %"),
        ({"mixed": 1}, r"mixed: expected bool, got 1 \(int\)"),
        ({"layers": "yes"}, "layers: expected bool, got 'yes'"),
        ({"calibration": 3}, "the calibration 3: expected min-max or entropy"),
        ({"calibration": "minmax"}, "the calibration minmax: expected min-max or entropy; did you mean"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PrecisionOptions(**options)


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8", "fp8"])
def test_a_bundle_of_reduced_precision(precision: str, thin: gd.Collapsed, tmp_path: Path) -> None:
    info = ModelInfo((SCENE, PARTS), INPUT)
    bundle = export(
        thin, tmp_path / "out", formats=["onnx", "openvino"], precision=precision, info=info, samples=judged()
    )
    assert read_bundle(bundle.path) == bundle
    said = json.loads((bundle.path / "manifest.json").read_text())
    assert said["precision"] == precision
    assert said["reduction"]["float32"] == said["reduction"]["reduced"]
    assert said["reduction"]["lost"] == {"scene": 0, "parts": 0}
    assert (said["reduction"]["judged_on"], said["reduction"]["calibrated_on"]) == (4, 4)
    assert said["verification"]["tolerance"] == 1e-4
    rounding = largest(said["reduction"]["error"]) or 0
    assert 0 < (largest(said["verification"]["error"]) or 0) < 1e-5 < rounding
    assert said["reduction"]["runtime"].startswith("onnxruntime ")
    assert said["engines"]["engine/openvino.xml"]["lost"] == {"scene": 0, "parts": 0}
    check = verify_bundle(bundle.path)
    assert check.parity.holds
    assert check.parity.tolerance <= min(PRECISIONS[precision].tolerance, 4 * rounding)
    text = (bundle.path / "README.md").read_text()
    assert "| scene | accuracy | 0.9 | 0.9 |" in text
    layers = said["reduction"]["layers"]
    assert f"{layers} of {layers} layers in {precision}, measured on 4 pictures (noise)." in text
    types = {weight.data_type for weight in onnx.load(str(bundle.model)).graph.initializer}
    low = {
        "fp16": TensorProto.FLOAT16,
        "bf16": TensorProto.BFLOAT16,
        "int8": TensorProto.INT8,
        "fp8": TensorProto.FLOAT8E4M3FN,
    }
    assert low[precision] in types
    picture = {"image": np.zeros((2, *INPUT.shape), np.float32)}
    with open_runner(bundle.path, "openvino") as runner:
        assert {name: values.dtype for name, values in runner.infer(picture).items()} == {
            "scene": np.float32,
            "parts": np.float32,
        }
    reasons = {
        "bf16": "for which onnxruntime has no kernels on processors",
        "fp8": "of which onnxruntime's optimiser makes something else on processors",
    }
    if precision in reasons:
        with pytest.raises(InputError, match=f"is {precision}, {reasons[precision]}; take openvino, a GPU, or"):
            open_runner(bundle.path)


def test_an_engine_in_which_a_task_loses_too_much_is_refused(thin: gd.Collapsed, tmp_path: Path) -> None:
    samples = judged(0.9, 0.9, 0.8)  # in float32, in ONNX Runtime, in OpenVINO
    message = (
        r"int8 in openvino, measured on 4 pictures of noise: scene loses 11\.11 % \(accuracy 0\.9 → 0\.8\); parts "
        r"loses nothing \(.*\. Refused, for a task may lose 1 %\. In ONNX Runtime it holds: leave openvino out, or "
        r"allow more"
    )
    info = ModelInfo((SCENE, PARTS), INPUT)
    with pytest.raises(CheckError, match=message):
        export(thin, tmp_path / "out", formats=["openvino"], precision="int8", info=info, samples=samples)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(("enough", "asked"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 4, 3]), (6, [1, 2, 4, 8, 6, 5])])
def test_as_few_layers_stay_in_float32_as_it_takes(enough: int, asked: list[int]) -> None:
    counts: list[int] = []

    def judge(kept: Sequence[str]) -> Verdict:
        counts.append(len(kept))
        return Verdict({}, {"task": 0.0 if len(kept) >= enough else 5.0})

    kept, verdict = mixed(judge, [f"layer {number}" for number in range(20)], 1.0)
    assert (len(kept), verdict.lost["task"]) == (enough, 0.0)
    assert counts == asked


def test_one_layer_is_reduced_at_least() -> None:
    counts: list[int] = []

    def judge(kept: Sequence[str]) -> Verdict:
        counts.append(len(kept))
        return Verdict({}, {"task": 5.0})

    kept, verdict = mixed(judge, list("abcdef"), 1.0)
    assert (counts, len(kept), verdict.holds(1.0)) == ([1, 2, 4, 5], 5, False)


def test_a_loss_that_is_no_number_does_not_hold() -> None:
    assert not Verdict({}, {"task": float("nan")}).holds(1e9)


def test_what_was_judged_is_told(model: Path) -> None:
    told: list[tuple[str, int, int]] = []

    def measure(predict: Predict) -> Metrics:
        return {"scores": {"largest": float(predict(pictures(11))["scores"].max())}}

    with OnnxRuntimeRunner(model) as runner:
        judge = Judge(SPEC, Samples([pictures(11)], measure, HEADLINES, "made-up", 11), lambda *step: told.append(step))
        # Convolutions of another batch size may add up in another order.
        found = judge.measure(runner, "it", (2, 3, 5))["scores"]["largest"]
        assert found == pytest.approx(judge.measure(runner, "it")["scores"]["largest"], rel=1e-2)
    assert told == [("judging it", 11, 11)] * 2


def test_a_network_most_of_which_stayed_in_float32_is_held_to_that() -> None:
    def tolerance(precision: str, error: float) -> float:
        found = Reduction("", 1, 1, "", {}, {}, {}, 1.0, 1, (), {}, "", {"1": {"scene": error}})
        picture = np.zeros((1, 2), np.float32)
        return reference_of([Case(picture, {"scene": picture})], precision, found).tolerance

    assert tolerance("int8", 0.5) == 0.1
    assert tolerance("int8", 1e-3) == pytest.approx(4e-3)
    assert tolerance("int8", 1e-9) == 1e-4, "float32 rounds, too"
    assert tolerance("fp16", 1e-3) == pytest.approx(4e-3)


def test_a_network_that_was_wrong_before_is_not_blamed_on_its_precision(
    thin: gd.Collapsed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoiled(network: Any, info: ModelInfo, path: Path, opset: int) -> None:
        write(network, info, path, opset=opset)
        model = onnx.load(str(path))
        (bias,) = (weight for weight in model.graph.initializer if weight.name == "heads.scene.scores.bias")
        bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + 1, bias.name))
        onnx.save(model, str(path))

    write = export_onnx
    monkeypatch.setattr(bundle_module, "export_onnx", spoiled)
    with pytest.raises(CheckError, match="the ONNX network at batch size 1 differs in task 'scene'"):
        export(thin, tmp_path / "out", precision="int8", samples=judged(), info=ModelInfo((SCENE, PARTS), INPUT))
    assert not any(tmp_path.iterdir())
