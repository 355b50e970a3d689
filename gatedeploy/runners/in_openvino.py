"""ONNX files in OpenVINO."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from gatedeploy.errors import GatedeployError, InputError, MissingExtraError, located
from gatedeploy.runners.base import Array, Runner, TensorSpec, check_feed, check_threads, still_open, with_free_sizes
from gatedeploy.runners.openvino_model import read_model


@final
class OpenVinoRunner(Runner):
    """An ONNX file in OpenVINO, on the CPU.

    Args:
        path: the file; external data is looked for beside it.
        threads: threads for one request. None leaves it to the library.
        batch: the only batch size that will be asked; None leaves it free, for which the library compiles slower code.
        name: what reports call it.

    Raises:
        MissingExtraError: openvino is not installed.
        InputError: no such file, or no ONNX file.
    """

    def __init__(
        self, path: Path | str, *, threads: int | None = None, batch: int | None = None, name: str = "openvino"
    ) -> None:
        check_threads(threads)
        self.name, self.threads = name, threads
        with located(str(path)):
            compiled = _compiled(Path(path), threads, batch)
        self.inputs = tuple(map(_tensor_spec, compiled.inputs))
        self.outputs = tuple(map(_tensor_spec, compiled.outputs))
        self._request = compiled.create_infer_request()

    def infer(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """See `Runner`."""
        check_feed(feed, self.inputs)
        request = still_open(self._request, self.name)
        try:
            found = request.infer(dict(feed), share_inputs=True)
        except RuntimeError as error:
            raise GatedeployError(f"{self.name} failed: {_reason(error)}") from error
        return {spec.name: found[position] for position, spec in enumerate(self.outputs)}

    def close(self) -> None:
        """See `Runner`."""
        self._request = None


def _compiled(path: Path, threads: int | None, batch: int | None) -> Any:
    try:
        import openvino
    except ImportError:
        raise MissingExtraError("running a network in OpenVINO", "openvino", "openvino") from None
    if not path.is_file():
        raise InputError("no such file; expected an ONNX file")
    core = openvino.Core()
    # Unless told otherwise it rounds float32 to bfloat16 on processors with instructions for it (AVX-512 BF16, AMX).
    settings: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": "f32",
    }
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    try:
        model = read_model(core, path)
        if batch is not None:
            model.reshape({port: [batch, *list(port.get_partial_shape())[1:]] for port in model.inputs})
        return core.compile_model(model, "CPU", settings)
    except RuntimeError as error:
        raise InputError(f"openvino cannot load it ({_reason(error)}); write or copy it again") from error


def _reason(error: RuntimeError) -> str:
    """The last line: those before it name places in the library."""
    return str(error).strip().splitlines()[-1]


def _tensor_spec(port: Any) -> TensorSpec:
    sizes = with_free_sizes(size.get_length() if size.is_static else -1 for size in port.get_partial_shape())
    return TensorSpec(port.get_any_name(), sizes, str(port.get_element_type().to_dtype()))
