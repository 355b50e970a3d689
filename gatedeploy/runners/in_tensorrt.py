"""TensorRT engines on the GPU that they were built for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import numpy as np
import torch

from gatedeploy.errors import GatedeployError, InputError, located
from gatedeploy.runners.base import Array, Runner, TensorSpec, check_batch, check_feed, still_open
from gatedeploy.runners.tensorrt_library import library, messages_of, port, said_by


@final
class TensorRtRunner(Runner):
    """A TensorRT engine (`.plan`). It is machine code: whoever made it runs it.

    Its memory is PyTorch's, which therefore must be a build for CUDA.

    Args:
        path: the engine.
        runtime: "tensorrt" or "tensorrt-rtx", which cannot run each other's engines.
        batches: the smallest and the largest batch size that it takes.

    Raises:
        MissingExtraError: the library is not installed.
        InputError: there is no GPU, no such file, or no engine that this library and this GPU can run.
    """

    def __init__(self, path: Path | str, runtime: str, batches: tuple[int, int]) -> None:
        self.name, self.threads, self._batches = runtime, None, batches
        _, self._trt = library(runtime)
        with located(str(path)):
            self._engine: Any = _loaded(self._trt, Path(path), runtime)
            self._context = self._engine.create_execution_context()
            if self._context is None:
                raise GatedeployError(f"{runtime} cannot run it here: {said_by(self._trt)}")
        names = [self._engine.get_tensor_name(number) for number in range(self._engine.num_io_tensors)]
        taken = [name for name in names if self._engine.get_tensor_mode(name) == self._trt.TensorIOMode.INPUT]
        self.inputs = tuple(self._spec(name) for name in taken)
        self.outputs = tuple(self._spec(name) for name in names if name not in taken)

    def infer(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """See `Runner`."""
        check_feed(feed, self.inputs)
        check_batch(feed, self.inputs[0], self._batches)
        still_open(self._engine, self.name)
        tensors = {spec.name: torch.from_numpy(np.ascontiguousarray(feed[spec.name])).cuda() for spec in self.inputs}
        for name, tensor in tensors.items():
            self._context.set_input_shape(name, tuple(tensor.shape))
        for spec in self.outputs:
            shape = tuple(self._context.get_tensor_shape(spec.name))
            tensors[spec.name] = torch.empty(shape, dtype=getattr(torch, spec.dtype), device="cuda")
        for name, tensor in tensors.items():
            self._context.set_tensor_address(name, tensor.data_ptr())
        stream = torch.cuda.current_stream()
        if not self._context.execute_async_v3(stream.cuda_stream):
            raise GatedeployError(f"{self.name} failed: {said_by(self._trt)}")
        stream.synchronize()
        return {spec.name: tensors[spec.name].cpu().numpy() for spec in self.outputs}

    def close(self) -> None:
        """See `Runner`."""
        self._context = self._engine = None

    def _spec(self, name: str) -> TensorSpec:
        return port(name, self._engine.get_tensor_shape(name), self._engine.get_tensor_dtype(name))


def _loaded(trt: Any, path: Path, runtime: str) -> Any:
    if not torch.cuda.is_available():
        raise InputError(f"{runtime} runs engines on a GPU, and PyTorch {torch.__version__} finds none here")
    if not path.is_file():
        raise InputError("no such file; expected an engine")
    messages = messages_of(trt)
    messages.lines.clear()
    engine = trt.Runtime(messages).deserialize_cuda_engine(path.read_bytes())
    if engine is None:
        told = f"{runtime} {trt.__version__} cannot load it here: {said_by(trt)}"
        raise InputError(
            f"{told}; an engine runs in the version and on the GPUs that it was built for: export it again"
        )
    return engine
