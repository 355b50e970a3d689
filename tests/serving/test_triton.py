"""Triton: its Python backend, run by a stand-in for the module that Triton gives it; its client, asking a server."""

from __future__ import annotations

import re
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import gatedeploy as gd
from gatedeploy.exporters import Bundle
from gatedeploy.exporters.triton import write_triton
from gatedeploy.runners.base import Array
from gatedeploy.runners.in_onnxruntime import OnnxRuntimeRunner
from tests.serving.page import ASKING_TRITON, EXAMPLES, PAGE, ROOT, answers, assert_same, load, of_module, pictures

# Tests that share the bundle are run by one process.
pytestmark = pytest.mark.xdist_group("serving")


class Tensor(SimpleNamespace):
    """As in github.com/triton-inference-server/python_backend, README.md, like the rest of the stand-in."""

    def as_numpy(self) -> Any:
        return self.values


def backend_utils() -> ModuleType:
    """What Triton gives its Python models. A request is a list of tensors here."""

    def error(message: str, code: int) -> SimpleNamespace:
        return SimpleNamespace(message=message, code=code)

    def response(tensors: list[Tensor] | None = None, error: Any = None) -> SimpleNamespace:
        return SimpleNamespace(outputs={tensor.name: tensor.values for tensor in tensors or []}, error=error)

    error.INVALID_ARG = 3  # type: ignore[attr-defined]
    return of_module(
        "triton_python_backend_utils",
        Tensor=lambda name, values: Tensor(name=name, values=values),
        InferenceResponse=response,
        TritonError=error,
        get_input_tensor_by_name=lambda request, name: next((one for one in request if one.name == name), None),
    )


class ModelConfig(dict[str, Any]):
    """The settings of a model while they are completed."""

    def set_max_batch_size(self, size: int) -> None:
        self["max_batch_size"] = size

    def set_dynamic_batching(self) -> None:
        self["dynamic_batching"] = {}

    def add_input(self, port: dict[str, Any]) -> None:
        self.setdefault("input", []).append(port)

    def add_output(self, port: dict[str, Any]) -> None:
        self.setdefault("output", []).append(port)


@pytest.fixture
def python_model(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """`model.py`, laid into a repository as the page says."""
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", backend_utils())
    for line in re.findall(r"^(?:mkdir|cp) .*", PAGE, re.MULTILINE):
        command, *words = line.split()
        *sources, target = (tmp_path / word if word.startswith("repository") else ROOT / word for word in words[-2:])
        if command == "mkdir":
            target.mkdir(parents=True)
        elif "-r" in words:
            shutil.copytree(bundle.path, target)
        else:
            shutil.copy(sources[0], target)
    return load(tmp_path / "repository" / "rooms_python" / "1" / "model.py")


def image(values: Array, name: str = "image") -> list[Tensor]:
    return [Tensor(name=name, values=values)]


class TestPythonBackend:
    def test_it_answers_requests_together(self, python_model: ModuleType, bundle: Bundle) -> None:
        model = python_model.TritonPythonModel()
        model.initialize({"model_name": "rooms_python"})
        batch = pictures(8)
        expected = answers(bundle, batch)
        assert len(set(expected["scene.class"])) == 2
        responses = model.execute([image(batch[:1]), image(batch[1:6]), image(batch[6:])])
        assert [len(response.outputs["scene"]) for response in responses] == [1, 5, 2]
        got = {name: np.concatenate([one.outputs[name] for one in responses]) for name in responses[0].outputs}
        assert got["scene.class"].dtype.name == "object", "how Triton takes text"
        assert got["scene.class"].shape == (8, 1)
        assert_same(got, expected)
        model.finalize()
        with pytest.raises(gd.InputError, match="is closed"):
            model.execute([image(batch)])

    def test_a_request_that_does_not_fit_spoils_no_other(self, python_model: ModuleType, bundle: Bundle) -> None:
        model = python_model.TritonPythonModel()
        model.initialize({})
        batch = pictures(2)
        wrong = [image(batch[:, :, :4]), image(batch.astype(np.float64)), image(batch, "picture")]
        first, *refused = model.execute([image(batch), *wrong])
        assert_same(first.outputs, answers(bundle, batch))
        assert {response.error.code for response in refused} == {3}
        for response, told in zip(refused, ("height 4, expected 8", "got float64", "is missing"), strict=True):
            assert re.match(f"input 'image':? {told}", response.error.message)
        assert len(model.execute(wrong)) == 3
        model.finalize()

    def test_triton_is_told_what_it_takes_and_returns(self, python_model: ModuleType) -> None:
        config = python_model.TritonPythonModel.auto_complete_config(ModelConfig(backend="python"))
        assert config == {
            "backend": "python",
            "max_batch_size": 32,
            "dynamic_batching": {},
            "input": [{"name": "image", "data_type": "TYPE_FP32", "dims": [3, 8, 8]}],
            "output": [
                {"name": "scene", "data_type": "TYPE_FP32", "dims": [2]},
                {"name": "parts", "data_type": "TYPE_FP32", "dims": [3, 8, 8]},
                {"name": "scene.class", "data_type": "TYPE_STRING", "dims": [1]},
            ],
        }
        message = library("tritonclient.grpc.model_config_pb2").ModelConfig
        library("google.protobuf.json_format").ParseDict(config, message())
        said = library("google.protobuf.text_format").Parse(
            (EXAMPLES / "python_backend" / "config.pbtxt").read_text(), message()
        )
        assert (said.backend, said.platform) == ("python", "")


def library(name: str) -> Any:
    return pytest.importorskip(name, reason="tritonclient is not installed: pip install 'tritonclient[grpc]'")


class Triton:
    """Answers what the page's client asks, by nothing but the files of a model; it is no Triton."""

    def __init__(self, model: Path) -> None:
        self.model = model
        self.service = library("tritonclient.grpc.service_pb2")
        config = library("tritonclient.grpc.model_config_pb2").ModelConfig()
        self.config = library("google.protobuf.text_format").Parse((model / "config.pbtxt").read_text(), config)

    def ModelConfig(self, request: Any, context: Any) -> Any:  # noqa: N802  as the service calls it
        assert request.name == self.config.name
        return self.service.ModelConfigResponse(config=self.config)

    def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        (port,), (asked,), (content,) = self.config.input, request.inputs, request.raw_input_contents
        assert (asked.name, asked.datatype, list(asked.shape[1:])) == (port.name, "FP32", list(port.dims))
        assert 1 <= asked.shape[0] <= self.config.max_batch_size
        with OnnxRuntimeRunner(self.model / "1" / "model.onnx") as runner:
            predicted = runner.infer({asked.name: np.frombuffer(content, np.float32).reshape(asked.shape)})
        labels = {output.name: output.label_filename for output in self.config.output}
        response = self.service.ModelInferResponse(model_name=request.model_name)
        for output in request.outputs:
            values, kind = predicted[output.name], "FP32"
            if output.parameters["classification"].int64_param == 1:
                names = (self.model / labels[output.name]).read_text().splitlines()
                best = [(row.max(), row.argmax()) for row in values]
                text = [[f"{value}:{place}:{names[place]}".encode()] for value, place in best]
                values, kind = np.array(text, dtype=object), "BYTES"
            response.outputs.add(name=output.name, datatype=kind, shape=values.shape)
            packed = library("tritonclient.utils").serialize_byte_tensor(values).item() if kind == "BYTES" else None
            response.raw_output_contents.append(values.tobytes() if packed is None else packed)
        return response


def test_the_pages_client_understands_the_model(bundle: Bundle, tmp_path: Path) -> None:
    grpc, stubs = library("grpc"), library("tritonclient.grpc.service_pb2_grpc")
    answering = Triton(write_triton(bundle, tmp_path, "rooms"))
    server = grpc.server(ThreadPoolExecutor(1))
    names = {name: getattr(answering, name) for name in ("ModelConfig", "ModelInfer")}
    servicer = type("Servicer", (stubs.GRPCInferenceServiceServicer,), {n: staticmethod(f) for n, f in names.items()})
    stubs.add_GRPCInferenceServiceServicer_to_server(servicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        seen: dict[str, Any] = {}
        exec(ASKING_TRITON.replace("localhost:8001", f"127.0.0.1:{port}"), seen)
    finally:
        server.stop(None)
    expected = answers(bundle, seen["image"])
    assert seen["name"] == expected["scene.class"][0]
    assert float(seen["score"]) == pytest.approx(expected["scene"].max(), rel=1e-5)
    assert np.array_equal(seen["parts"], expected["parts"].argmax(1))
    np.testing.assert_allclose(seen["image"][0, 1], (seen["picture"][..., 1] / 255 - 0.4) / 0.25, rtol=1e-6)
