"""What docs/serving.md shows is run: by stand-ins for the servers, and in Ray Serve where it is installed."""

from __future__ import annotations

import asyncio
import importlib.util
import io
import re
import shutil
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import gatedeploy as gd
from gatedeploy.exporters import Bundle, write_bundle
from gatedeploy.exporters.triton import write_triton
from gatedeploy.runners.base import Array
from gatedeploy.runners.in_onnxruntime import OnnxRuntimeRunner
from tests.exporters.networks import INFO, INPUT, PARTS, SCENE, example, gated

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "docs" / "serving"
PAGE = (ROOT / "docs" / "serving.md").read_text()
SHAPE = INPUT.shape

# Tests that share the bundle are run by one process.
pytestmark = pytest.mark.xdist_group("serving")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """One whose network takes about half of all pictures for kitchens."""
    net = gated()
    with torch.no_grad():
        net.get_parameter("heads.scene.scores.bias").sub_(net(example(64))["scene"].mean(0))
    thin = gd.collapse(net, example_input=example())
    return write_bundle(thin, INFO, tmp_path_factory.mktemp("serving") / "bundle")


def pictures(count: int) -> Array:
    return np.random.default_rng(count).standard_normal((count, *SHAPE)).astype(np.float32)


def answers(bundle: Bundle, batch: Array) -> dict[str, Array]:
    """What is to be answered, picture by picture, with the names of the winning classes."""
    with gd.open(bundle.path) as runner:
        each = [runner.infer({"image": picture[None]}) for picture in batch]
    outputs = {name: np.concatenate([one[name] for one in each]) for name in each[0]}
    return outputs | {"scene.class": np.array(SCENE.classes)[outputs["scene"].argmax(1)]}


def assert_same(got: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
    """Sums are put together otherwise in a batch of another size."""
    assert set(got) - {"parts.classes"} == set(expected)
    for name, values in expected.items():
        if name == "scene.class":
            assert np.array_equal(got[name].astype(str).reshape(values.shape), values)
        else:
            assert (got[name].shape, got[name].dtype) == (values.shape, values.dtype)
            np.testing.assert_allclose(got[name], values, rtol=0, atol=1e-5)


def load(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def of_module(name: str, **members: Any) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(members)
    return module


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


BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
WRITING, ASKING_TRITON, ASKING_RAY = BLOCKS


def test_the_page_writes_a_repository(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(bundle.path, tmp_path / "runs" / "demo" / "rooms")
    monkeypatch.chdir(tmp_path)
    exec(WRITING, {})
    assert (tmp_path / "repository" / "rooms" / "1" / "model.onnx").is_file()


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


def ray_stand_in() -> dict[str, ModuleType]:
    """As much of Ray Serve and Starlette as the example touches; calls that wait at the same time are one batch."""

    def batch(max_batch_size: int, batch_wait_timeout_s: float) -> Callable[[Any], Any]:
        def decorate(method: Any) -> Any:
            waiting: list[tuple[Any, asyncio.Future[Any]]] = []

            async def one(self: Any, item: Any) -> Any:
                waiting.append((item, asyncio.get_running_loop().create_future()))
                mine = waiting[-1][1]
                await asyncio.sleep(0)
                taken, waiting[:] = waiting[:max_batch_size], waiting[max_batch_size:]
                if taken:
                    for (_, future), result in zip(taken, await method(self, [item for item, _ in taken]), strict=True):
                        future.set_result(result)
                return await mine

            return one

        return decorate

    def response(content: Any, status_code: int = 200, media_type: str = "") -> SimpleNamespace:
        return SimpleNamespace(content=content, status_code=status_code)

    serve = of_module("ray.serve", deployment=lambda **_: lambda cls: cls, batch=batch)
    return {
        "ray": of_module("ray", serve=serve),
        "starlette.requests": of_module("starlette.requests", Request=object),
        "starlette.responses": of_module("starlette.responses", Response=response),
    }


def unpacked(content: bytes) -> dict[str, Array]:
    return dict(np.load(io.BytesIO(content), allow_pickle=False))


def test_ray_serves_what_comes_in_together_as_one_batch(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, module in ray_stand_in().items():
        monkeypatch.setitem(sys.modules, name, module)
    served = load(EXAMPLES / "serve_bundle.py").ServedBundle(str(bundle.path), threads=1)
    sizes, infer = [], served.runner.infer

    def counted(feed: Mapping[str, Array]) -> dict[str, Array]:
        sizes.append(len(feed["image"]))
        return dict(infer(feed))

    monkeypatch.setattr(served.runner, "infer", counted)
    batch = pictures(20)

    async def ask(body: bytes) -> Any:
        async def content() -> bytes:
            return body

        return await served(SimpleNamespace(body=content))

    async def ask_all() -> list[Any]:
        return await asyncio.gather(*(ask(body) for body in (*map(bytes, batch), b"half a picture")))

    *good, bad = asyncio.run(ask_all())
    assert (bad.status_code, bad.content) == (400, "got 14 bytes, expected 768: one picture of float32 (3, 8, 8)\n")
    assert sizes == [16, 4]
    each = [unpacked(response.content) for response in good]
    assert_same({name: np.stack([one[name] for one in each]) for name in each[0]}, answers(bundle, batch))
    assert all(tuple(one["parts.classes"]) == PARTS.classes for one in each)


@pytest.mark.slow
def test_ray_serve_answers_over_http(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray", reason="Ray Serve is not installed: pip install 'ray[serve]'")
    serve = pytest.importorskip("ray.serve", reason="Ray Serve is not installed: pip install 'ray[serve]'")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url, batch = f"http://127.0.0.1:{port}/", pictures(300)

    def ask(picture: Array) -> dict[str, Array]:
        with urllib.request.urlopen(url, data=picture.tobytes(), timeout=60) as response:
            return unpacked(response.read())

    environment = {"env_vars": {"PYTHONPATH": f"{EXAMPLES}:{ROOT}"}}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=environment)
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(importlib.import_module("serve_bundle").app({"bundle": str(bundle.path), "threads": "1"}))
        with ThreadPoolExecutor(32) as pool:
            each = list(pool.map(ask, batch))
        with pytest.raises(urllib.error.HTTPError, match="HTTP Error 400"):
            ask(batch[0, :1])
        seen: dict[str, Any] = {}
        exec(ASKING_RAY.replace("http://127.0.0.1:8000/", url).replace("64, 64", "8, 8"), seen)
    finally:
        serve.shutdown()
        ray.shutdown()
    assert_same({name: np.stack([one[name] for one in each]) for name in each[0]}, answers(bundle, batch))
    assert str(seen["answer"]["scene.class"]) in SCENE.classes


LINES = re.findall(r"^gatedeploy (.*)$", PAGE, re.MULTILINE)


@pytest.mark.parametrize("line", LINES)
def test_every_command_line_of_the_page_is_understood(line: str) -> None:
    from typer.main import get_group

    from gatedeploy.cli.app import app

    group = get_group(app)
    with group.make_context("gatedeploy", line.split()) as context:
        name, command, rest = group.resolve_command(context, line.split())
        assert command is not None
        command.make_context(name, rest, parent=context).close()
