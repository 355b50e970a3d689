"""Engines are really built, on a machine without a GPU; nothing runs them here."""

from __future__ import annotations

import _thread
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

import gatedeploy as gd
from gatedeploy.artifact import ModelInfo
from gatedeploy.errors import CheckError, GatedeployError, InputError, MissingExtraError
from gatedeploy.exporters import Bundle, export, read_bundle, verify_bundle
from gatedeploy.exporters import to_tensorrt as module
from gatedeploy.exporters.engine_options import EngineOptions, check_capabilities
from gatedeploy.exporters.to_tensorrt import build_engine
from gatedeploy.runners.base import TensorSpec
from gatedeploy.runners.tensorrt_library import library, messages_of
from tests.exporters.networks import INPUT, PARTS, SCENE
from tests.exporters.precision.test_reduction import judged

try:
    import tensorrt_rtx
except ImportError:
    tensorrt_rtx = None

rtx = pytest.mark.skipif(tensorrt_rtx is None, reason="tensorrt-rtx is not installed: there is none for this system")
RTX = EngineOptions("tensorrt-rtx")


@rtx
def test_an_engine_is_built_and_told(exported: Bundle, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    options = EngineOptions("tensorrt-rtx", ((1,), (2, 3, 8, 8), (4,)), (86, 89), 0, 64 << 20)
    engine = build_engine(exported.model, tmp_path / "x.plan", INPUT, options, lambda *step: told.append(step))
    assert (tmp_path / "x.plan").stat().st_size > 1000
    assert (engine.runtime, engine.version) == ("tensorrt-rtx", tensorrt_rtx.__version__)
    assert (engine.targets, engine.batches) == (("SM86", "SM89"), (1, 2, 4))
    assert engine.inputs == (TensorSpec("image", ("batch", 3, 8, 8), "float32"),)
    assert engine.outputs == exported.manifest.outputs
    assert engine.layers["float32"] > 0
    assert told[0][1] == 0
    assert told[-1][1] == told[-1][2] > 0


@rtx
@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp16", "float16"), ("bf16", "bfloat16"), ("int8", "int8"), ("fp8", "float8")]
)
def test_an_engine_of_reduced_precision(precision: str, dtype: str, thin: gd.Collapsed, tmp_path: Path) -> None:
    options = EngineOptions("tensorrt-rtx", compute_capabilities=(89,))
    info = ModelInfo((SCENE, PARTS), INPUT)
    bundle = export(
        thin, tmp_path / "out", formats=["trt"], precision=precision, engine=options, samples=judged(), info=info
    )
    (engine,) = bundle.manifest.engines.values()
    assert engine.layers[dtype] >= len(engine.outputs)
    assert [(port.name, port.dtype) for port in (*engine.inputs, *engine.outputs)] == [
        ("image", "float32"),
        ("scene", "float32"),
        ("parts", "float32"),
    ]


@rtx
def test_a_bundle_with_an_engine(thin: gd.Collapsed, tmp_path: Path) -> None:
    bundle = export(thin, tmp_path / "out", formats=["trt"], engine=EngineOptions("tensorrt-rtx"))
    assert bundle.manifest.formats == ("onnx", "trt")
    assert set(bundle.manifest.engines) == {"engine/tensorrt-rtx.plan"}
    assert read_bundle(bundle.path).manifest == bundle.manifest
    assert verify_bundle(bundle.path).files == len({"model.onnx", "manifest.json", "README.md", "engine", "its layers"})
    text = (bundle.path / "README.md").read_text()
    assert f"| `engine/tensorrt-rtx.plan` | tensorrt-rtx {tensorrt_rtx.__version__} | its choice | 1 / 8 / 32 |" in text
    listed = [line.split("\t") for line in (bundle.path / "engine/tensorrt-rtx.layers.txt").read_text().splitlines()]
    (engine,) = bundle.manifest.engines.values()
    assert len(listed) == sum(engine.layers.values())
    assert ["float32", "convolution", "parts.first.0/Conv"] in [[dtype, kind, name] for dtype, kind, name in listed]
    (bundle.path / "engine/tensorrt-rtx.plan").write_bytes(b"another engine")
    with pytest.raises(CheckError, match=r"engine/tensorrt-rtx.plan has 14 bytes, expected"):
        read_bundle(bundle.path)


def of_one_node(file: Path, operator: str = "Relu", *, input: str = "image", batch: Any = "batch") -> Path:
    """An ONNX file of one operator on pictures of 3×8×8."""
    sizes = [batch, 3, 8, 8]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes) for name in (input, "y")]
    node = helper.make_node(operator, [input], ["y"], name=f"layer/{operator}")
    graph = helper.make_graph([node], "net", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), file)
    return file


def of_bytes(content: bytes) -> Callable[[Path], Path]:
    def write(file: Path) -> Path:
        file.write_bytes(content)
        return file

    return write


def cut_short(file: Path) -> Path:
    file.write_bytes(of_one_node(file).read_bytes()[:60])
    return file


@rtx
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (of_bytes(b""), "holds no network; expected an ONNX file: export it again"),
        (of_bytes(b"hello\n"), "holds no network; expected an ONNX file: export it again"),
        (cut_short, "TensorRT cannot read it: .*; export it again"),
        (partial(of_one_node, operator="Bernoulli"), "node 'layer/Bernoulli': TensorRT does not take the operator"),
        (partial(of_one_node, input="x"), r"takes x \(-1, 3, 8, 8\); expected image \(-1, 3, 8, 8\)"),
        (partial(of_one_node, batch=2), r"takes image \(2, 3, 8, 8\); expected image \(-1, 3, 8, 8\)"),
    ],
    ids=["nothing", "words", "cut short", "an operator", "another input", "a fixed batch"],
)  # fmt: skip
def test_files_that_are_not_taken(make: Callable[[Path], Path], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"model.onnx: {message}"):
        build_engine(make(tmp_path / "model.onnx"), tmp_path / "x.plan", INPUT, RTX)
    assert not (tmp_path / "x.plan").exists()


@rtx
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compute_capabilities": (90,)}, r"^--sm 90: tensorrt-rtx \S+ does not build for it; .* 75, .*89"),
        (
            {"shapes": ((1,), (2, 3, 9, 8), (4,))},
            "^--opt-shapes 2x3x9x8: the network takes 2x3x8x8, where",
        ),
    ],
)
def test_what_an_engine_cannot_be(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        build_engine(
            of_one_node(tmp_path / "m.onnx"),
            tmp_path / "x.plan",
            INPUT,
            EngineOptions("tensorrt-rtx", **options),
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shapes": ((8,), (1,), (32,))}, r"batch sizes 8, 1, 32: expected the smallest \(--min-shapes\)"),
        ({"shapes": ((0,), (1,), (32,))}, "batch sizes 0, 1, 32"),
        ({"optimization_level": 6}, "optimization level 6: expected 0 to 5"),
        ({"workspace_bytes": 0}, "workspace of 0 bytes"),
        ({"runtime": "tensort"}, "the TensorRT library tensort: expected tensorrt or tensorrt-rtx; did you mean"),
        ({"runtime": 3}, "the TensorRT library 3: expected tensorrt or"),
        ({"shapes": (("a",), (1,), (32,))}, r"--min-shapes \('a',\): expected whole numbers"),
        ({"shapes": ((1,), (8,), 32)}, "--max-shapes 32: expected whole numbers"),
        ({"shapes": ((1,), (), (32,))}, r"--opt-shapes \(\): expected whole numbers"),
        ({"shapes": 8}, "shapes 8: expected three, the smallest, the usual and the largest"),
        ({"compute_capabilities": ("86",)}, r"--sm \('86',\): expected whole numbers"),
        ({"compute_capabilities": 86}, "--sm 86: expected whole numbers"),
        ({"optimization_level": "high"}, "optimization level high: expected 0 to 5"),
        ({"workspace_bytes": 2.5}, "workspace_bytes: expected int or None"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        EngineOptions(**options)


@rtx
def test_the_user_can_end_a_build(exported: Bundle, tmp_path: Path) -> None:
    """Asked at the first step: a machine that is busy elsewhere may build the rest before Python looks."""
    # Tests in the background inherit that it is ignored.
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    asked: list[str] = []

    def interrupt(phase: str, done: int, steps: int) -> None:
        if not asked:
            asked.append(phase)
            _thread.interrupt_main()

    try:
        with pytest.raises(KeyboardInterrupt):
            build_engine(exported.model, tmp_path / "x.plan", INPUT, RTX, interrupt)
    finally:
        signal.signal(signal.SIGINT, usual)
    assert not any(tmp_path.iterdir())


@rtx
def test_no_disk_space(exported: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(GatedeployError, match="could not be written: No space left on device"):
        build_engine(exported.model, tmp_path / "x.plan", INPUT, RTX)
    assert not any(tmp_path.iterdir())


@rtx
def test_a_build_that_fails_says_why(exported: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library returns nothing, and says why to its logger."""

    def fail(builder: Any, network: Any, config: Any) -> None:
        messages_of(tensorrt_rtx).log(tensorrt_rtx.ILogger.ERROR, "no kernel for it")

    monkeypatch.setattr(tensorrt_rtx.Builder, "build_serialized_network", fail)
    with pytest.raises(CheckError, match="TensorRT could not build an engine: no kernel for it"):
        build_engine(exported.model, tmp_path / "x.plan", INPUT, RTX)


def test_a_library_that_is_missing(monkeypatch: pytest.MonkeyPatch, thin: gd.Collapsed, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(MissingExtraError, match=r"a TensorRT engine needs tensorrt, .*'gatedeploy\[tensorrt\]'"):
        library("tensorrt")
    with pytest.raises(MissingExtraError, match=r"a TensorRT engine needs tensorrt"):
        export(thin, tmp_path / "out", formats=["trt"])
    assert not any(tmp_path.iterdir())
    with pytest.raises(
        InputError, match="the TensorRT runtime tensort: expected tensorrt or tensorrt-rtx; did you mean"
    ):
        library("tensort")


def test_the_library_that_needs_no_gpu_comes_first_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    large, small = SimpleNamespace(), SimpleNamespace()
    monkeypatch.setitem(sys.modules, "tensorrt", large)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", small)
    for gpu, expected in ((False, ("tensorrt-rtx", small)), (True, ("tensorrt", large))):
        monkeypatch.setattr("torch.cuda.is_available", lambda gpu=gpu: gpu)
        assert library(None) == expected


def test_tensorrt_itself_builds_for_the_gpu_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no compute capabilities to choose from; stood in for, for it cannot be installed without a GPU."""
    flags: set[str] = set()
    trt = SimpleNamespace(ProfilingVerbosity=SimpleNamespace(DETAILED=1), BuilderFlag=SimpleNamespace(TF32="TF32"))
    config = SimpleNamespace(clear_flag=flags.discard, set_flag=flags.add)
    module._configure(trt, config, (), EngineOptions(tf32=True))
    assert flags == {"TF32"}
    module._configure(trt, config, (), EngineOptions())
    assert flags == set(), "float32 is float32 unless asked otherwise"
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(IBuilderConfig=object))
    assert check_capabilities(EngineOptions("tensorrt")) == ()
    with pytest.raises(InputError, match="--sm: tensorrt builds for the GPU of this machine alone; leave it out"):
        check_capabilities(EngineOptions("tensorrt", compute_capabilities=(86,)))
