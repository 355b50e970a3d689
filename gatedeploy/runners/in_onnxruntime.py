"""ONNX files in ONNX Runtime."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

from gatedeploy.errors import GatedeployError, InputError, MissingExtraError, first_line, located
from gatedeploy.runners.base import Array, Runner, TensorSpec, check_feed, check_threads, still_open

OPTIONS = {"CUDAExecutionProvider": {"use_tf32": "0"}}
"""Unless told otherwise, the library rounds what float32 multiplies on GPUs to TensorFloat-32."""


@final
class OnnxRuntimeRunner(Runner):
    """An ONNX file in ONNX Runtime.

    Args:
        path: the file; external data is looked for beside it.
        threads: threads within an operator; operators run one after the other. None: one per physical core.
        providers: which of the library's back ends to use, the preferred one first.
        optimized: whether the library may join and replace operators. Of float8 it makes something else when it does.
        name: what reports call it.

    Attributes:
        providers: the back ends that it really uses.

    Raises:
        MissingExtraError: onnxruntime is not installed.
        InputError: no such file, no ONNX file, or the preferred back end is not available.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        threads: int | None = None,
        providers: Sequence[str] = ("CPUExecutionProvider",),
        optimized: bool = True,
        name: str = "onnxruntime",
    ) -> None:
        check_threads(threads)
        self.name, self.threads = name, threads
        with located(str(path)):
            self._session = _session(Path(path), threads, list(providers), optimized)
            self.providers = tuple(self._session.get_providers())
            if self.providers[0] != providers[0]:
                fallen = f"{providers[0]} could not be used here, onnxruntime fell back to {self.providers[0]}"
                raise InputError(f"{fallen}; install its libraries (CUDA, cuDNN), or ask for the one that there is")
        self.inputs = tuple(map(_tensor_spec, self._session.get_inputs()))
        self.outputs = tuple(map(_tensor_spec, self._session.get_outputs()))
        self._names = [output.name for output in self.outputs]

    def infer(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """See `Runner`."""
        check_feed(feed, self.inputs)
        session = still_open(self._session, self.name)
        try:
            arrays = session.run(self._names, dict(feed))
        except Exception as error:  # onnxruntime has a dozen exception types without a common base
            raise GatedeployError(f"{self.name} failed: {_said(error)}") from error
        return dict(zip(self._names, arrays, strict=True))

    def close(self) -> None:
        """See `Runner`."""
        self._session = None


def _session(path: Path, threads: int | None, providers: list[str], optimized: bool) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtraError("running an ONNX file", "onnxruntime", "cpu") from None
    if not path.is_file():
        raise InputError("no such file; expected an ONNX file")
    available = onnxruntime.get_available_providers()
    if providers[0] not in available:
        raise InputError(f"the installed onnxruntime has no {providers[0]}; it has {', '.join(available)}")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only; what it has to say about a file is raised
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    try:
        chosen = [(name, OPTIONS.get(name, {})) for name in providers]
        return onnxruntime.InferenceSession(str(path), options, providers=chosen)
    except Exception as error:  # see infer
        raise InputError(f"onnxruntime cannot load it ({_said(error)}); write or copy it again") from error


def _said(error: Exception) -> str:
    """What onnxruntime says, without the number and the name of the error before it."""
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", first_line(error))


def _tensor_spec(port: Any) -> TensorSpec:
    shape = tuple(size if isinstance(size, (int, str)) else f"axis_{axis}" for axis, size in enumerate(port.shape))
    dtype = port.type.removeprefix("tensor(").removesuffix(")")
    return TensorSpec(port.name, shape, {"float": "float32", "double": "float64"}.get(dtype, dtype))
