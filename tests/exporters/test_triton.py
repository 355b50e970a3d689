"""Model repositories for Triton, read back by the parser and held to the rules that Triton itself goes by."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import gatedeploy as gd
from gatedeploy.errors import InputError
from gatedeploy.exporters import Bundle, read_bundle
from gatedeploy.exporters.manifest import Engine
from gatedeploy.exporters.triton import write_triton
from gatedeploy.exporters.triton_config import config_text, served_onnx
from gatedeploy.files import sha256
from gatedeploy.runners.base import TensorSpec
from gatedeploy.runners.in_onnxruntime import OnnxRuntimeRunner
from tests.exporters.networks import INPUT
from tests.exporters.test_reading import admit, edit

REASON = "tritonclient is not installed: pip install 'tritonclient[grpc]'"
model_config_pb2 = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason=REASON)
text_format = pytest.importorskip("google.protobuf.text_format", reason=REASON)

IMAGE = TensorSpec("image", ("batch", 3, 8, 8), "float32")


def parsed(text: str | bytes) -> Any:
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def config(folder: Path) -> Any:
    """What Triton reads of a model, once it holds to ValidateModelConfig and ValidateIOShape of Triton's core."""
    said = parsed((folder / "config.pbtxt").read_text(encoding="utf-8"))
    assert said.name == folder.name
    assert said.max_batch_size >= 1
    for port in (*said.input, *said.output):
        assert port.name
        assert port.data_type != model_config_pb2.TYPE_INVALID
        assert port.dims
        assert all(size >= 1 or size == -1 for size in port.dims)
    assert all(0 < size <= said.max_batch_size for size in said.dynamic_batching.preferred_batch_size)
    for output in said.output:
        assert not output.label_filename or (folder / output.label_filename).is_file()
    return said


def files(folder: Path) -> set[str]:
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if not file.is_dir()}


def with_engine(bundle: Bundle, runtime: str = "tensorrt", batches: tuple[int, int, int] = (1, 4, 16)) -> Bundle:
    """The bundle with an engine: bytes, which nothing here opens."""
    name = f"engine/{runtime}.plan"
    (bundle.path / "engine").mkdir()
    (bundle.path / name).write_bytes(b"ftrt a plan")
    engine = Engine(runtime, "10.9.0", ("SM86",), batches, (IMAGE,), bundle.manifest.outputs, {}, {})
    said = {**asdict(engine), "batches": dict(zip(("min", "opt", "max"), batches, strict=True))}
    admit(bundle, name)
    edit(bundle, lambda document: document["engines"].update({name: said}))
    return read_bundle(bundle.path)


def test_the_network_as_a_model(exported: Bundle, tmp_path: Path) -> None:
    model = write_triton(exported, tmp_path / "repository", "rooms")
    assert model == tmp_path / "repository" / "rooms"
    assert files(tmp_path / "repository") == {
        f"rooms/{name}"
        for name in ("config.pbtxt", "gatedeploy.json", "scene_labels.txt", "parts_labels.txt", "1/model.onnx")
    }
    said = config(model)
    assert (said.platform, said.max_batch_size) == ("onnxruntime_onnx", 32)
    assert [(port.name, port.data_type, list(port.dims)) for port in (*said.input, *said.output)] == [
        ("image", model_config_pb2.TYPE_FP32, [3, 8, 8]),
        ("scene", model_config_pb2.TYPE_FP32, [2]),
        ("parts", model_config_pb2.TYPE_FP32, [3, 8, 8]),
    ]
    assert said.HasField("dynamic_batching")
    assert list(said.dynamic_batching.preferred_batch_size) == [], "any size is as good"
    assert said.dynamic_batching.max_queue_delay_microseconds == 100
    assert not said.instance_group, "Triton chooses"


def test_its_files_are_those_of_the_bundle(exported: Bundle, tmp_path: Path) -> None:
    model = write_triton(exported, tmp_path, "rooms")
    assert sha256(model / "1/model.onnx") == exported.manifest.files["model.onnx"].sha256
    assert (model / "parts_labels.txt").read_text() == "sky\nroad\ntree\n"
    picture = {"image": np.random.default_rng(1).standard_normal((3, 3, 8, 8)).astype(np.float32)}
    with gd.open(exported.path) as runner, OnnxRuntimeRunner(model / "1/model.onnx") as served:
        for name, expected in runner.infer(picture).items():
            np.testing.assert_array_equal(served.infer(picture)[name], expected)


def test_labels_of_scores_and_of_maps(exported: Bundle, tmp_path: Path) -> None:
    """In a map Triton's classification would take a place for a class: clients are told of the file instead."""
    said = config(write_triton(exported, tmp_path, "rooms"))
    assert [output.label_filename for output in said.output] == ["scene_labels.txt", ""]
    told = {key: value.string_value for key, value in said.parameters.items()}
    assert told["labels.parts"] == "parts_labels.txt"
    assert told["labels.scene"] == "scene_labels.txt"


def test_clients_are_told_how_to_prepare_pictures(exported: Bundle, tmp_path: Path) -> None:
    told = config(write_triton(exported, tmp_path, "rooms")).parameters
    assert tuple(json.loads(told["mean"].string_value)) == INPUT.mean
    assert tuple(json.loads(told["std"].string_value)) == INPUT.std


def test_the_name_is_the_bundles(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert write_triton(bundle, tmp_path / "out").name == "bundle"
    monkeypatch.chdir(bundle.path)
    assert write_triton(Bundle(Path(), bundle.manifest), tmp_path / "other").name == "bundle"


def test_an_engine_is_a_model_of_its_own(bundle: Bundle, tmp_path: Path) -> None:
    write_triton(with_engine(bundle), tmp_path / "out", "rooms")
    engine = tmp_path / "out" / "rooms_trt"
    assert files(engine) == {
        "config.pbtxt",
        "gatedeploy.json",
        "scene_labels.txt",
        "parts_labels.txt",
        "1/model.plan",
    }
    assert (engine / "1/model.plan").read_bytes() == b"ftrt a plan"
    said = config(engine)
    assert (said.platform, said.max_batch_size) == ("tensorrt_plan", 16)
    assert list(said.dynamic_batching.preferred_batch_size) == [4, 16]
    assert "engine of TensorRT 10.9.0 for SM86: Triton has to have the same" in (engine / "config.pbtxt").read_text()
    assert config(tmp_path / "out" / "rooms").platform == "onnxruntime_onnx"


def test_an_engine_for_single_pictures_is_not_batched(bundle: Bundle, tmp_path: Path) -> None:
    write_triton(with_engine(bundle, batches=(1, 1, 1)), tmp_path / "out", "rooms")
    said = config(tmp_path / "out" / "rooms_trt")
    assert said.max_batch_size == 1
    assert not said.HasField("dynamic_batching")


def test_engines_of_tensorrt_for_rtx_are_left_out(bundle: Bundle, tmp_path: Path) -> None:
    write_triton(with_engine(bundle, "tensorrt-rtx"), tmp_path / "out", "rooms")
    assert [model.name for model in (tmp_path / "out").iterdir()] == ["rooms"]


def test_an_engine_that_takes_no_single_picture(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match="takes batches from 2 on, and Triton also sends single pictures; export it wi"
    ):
        write_triton(with_engine(bundle, batches=(2, 4, 16)), tmp_path / "out", "rooms")
    assert not (tmp_path / "out").exists()


def test_weights_beside_the_network_lie_with_it(bundle: Bundle, tmp_path: Path) -> None:
    """In a folder of the file's name, "ONNX Models" in Triton's docs/user_guide/model_repository.md."""
    onnx.save(
        onnx.load(bundle.model),
        bundle.model,
        save_as_external_data=True,
        location="model.onnx.data",
        size_threshold=200,
    )
    for name in ("model.onnx", "model.onnx.data"):
        admit(bundle, name)
    model = write_triton(read_bundle(bundle.path), tmp_path / "out", "rooms")
    assert {"1/model.onnx/model.onnx", "1/model.onnx/model.onnx.data"} < files(model)
    with OnnxRuntimeRunner(model / "1/model.onnx/model.onnx") as runner:
        assert set(runner.infer({"image": np.zeros((1, 3, 8, 8), np.float32)})) == {"scene", "parts"}


def test_bfloat16_is_for_gpus(exported: Bundle) -> None:
    manifest = replace(exported.manifest, precision="bf16")
    (group,) = parsed(config_text(served_onnx(manifest, "x"), manifest)).instance_group
    assert group.kind == model_config_pb2.ModelInstanceGroup.KIND_GPU
