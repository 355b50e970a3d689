"""Run a network on numpy arrays, whatever computes it, so that parity and latency are each one piece of code."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.utils import _pytree as pytree

from gatedeploy.errors import GatedeployError, InputError, MissingExtraError, closest, located
from gatedeploy.specs import InputSpec

Array = npt.NDArray[Any]
R = TypeVar("R", bound="Runner")

BATCH = "batch"
"""What the free batch size is called in shapes, here and in exported files."""

AXES = (BATCH, "channels", "height", "width")
PIXELS = "8-bit pixels are normalised first: (pixel / 255 - mean) / std"


@dataclass(frozen=True)
class TensorSpec:
    """A tensor that goes into a network or comes out of it.

    Args:
        name: how feeds and predictions call it.
        shape: its sizes; a name such as "batch" stands for a size that is free.
        dtype: numpy's name of its type, e.g. "float32".
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str

    def __str__(self) -> str:
        """E.g. `float32 (batch, 3, 128, 128)`."""
        return f"{self.dtype} ({', '.join(map(str, self.shape))})"


class Runner(abc.ABC):
    """A network that is ready to answer; a context manager that lets go of it at the end.

    Attributes:
        name: what reports call it.
        threads: how many threads compute one request; None leaves it to the library.
        inputs: what it takes.
        outputs: what it returns, in order.
    """

    name: str
    threads: int | None
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @abc.abstractmethod
    def infer(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """Answer one request.

        Args:
            feed: an array for each of `inputs`, by name; contiguous arrays are not copied.

        Returns:
            An array for each of `outputs`, by name.

        Raises:
            InputError: the feed is not what `inputs` says.
            GatedeployError: the runtime failed.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of the network; `infer` cannot be called any more."""

    @final
    def __enter__(self: R) -> R:
        return self

    @final
    def __exit__(self, *exception: object) -> None:
        self.close()


@final
class TorchRunner(Runner):
    """Any plain network in PyTorch, on the device where its weights are.

    Args:
        network: takes one picture and returns a dict of predictions; is put into evaluation mode.
        input: the picture.
        threads: how many threads PyTorch may use in this process until `close`; None leaves it as it is.
        name: what reports call it.

    Raises:
        InputError: the network does not return a dict of tensors.
        GatedeployError: it does not run on such a picture.
    """

    def __init__(self, network: nn.Module, input: InputSpec, threads: int | None = None, name: str = "torch") -> None:
        _check_threads(threads)
        self.name, self.threads = name, threads
        self._threads_before = torch.get_num_threads()
        self._network: nn.Module | None = network.eval()
        weights = [*network.parameters(), *network.buffers()]
        self._device = weights[0].device if weights else torch.device("cpu")
        dtype = next((weight.dtype for weight in weights if weight.is_floating_point()), torch.float32)
        self.inputs = (TensorSpec(input.name, (BATCH, *input.shape), str(dtype).removeprefix("torch.")),)
        try:
            self.outputs = self._describe(torch.zeros(2, *input.shape, dtype=dtype, device=self._device))
        except GatedeployError:
            self.close()
            raise

    def infer(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """See `Runner`."""
        check_feed(feed, self.inputs)
        array = np.ascontiguousarray(feed[self.inputs[0].name])
        image = torch.from_numpy(array if array.flags.writeable else array.copy())
        return {name: tensor.cpu().numpy() for name, tensor in self._predict(image.to(self._device)).items()}

    def close(self) -> None:
        """See `Runner`."""
        if self._network is not None and self.threads is not None:
            torch.set_num_threads(self._threads_before)
        self._network = None

    def _predict(self, image: torch.Tensor) -> dict[str, Any]:
        network = _still_open(self._network, self.name)
        # The number belongs to the process, so another runner may have changed it.
        if self.threads is not None and torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)
        try:
            with torch.inference_mode():
                return flat_predictions(network(image))
        except RuntimeError as error:
            raise GatedeployError(f"{self.name} failed on pictures {tuple(image.shape)}: {error}") from error

    def _describe(self, image: torch.Tensor) -> tuple[TensorSpec, ...]:
        specs = []
        for name, tensor in self._predict(image).items():
            if not isinstance(tensor, torch.Tensor):
                raise InputError(f"prediction {name!r} is a {type(tensor).__name__}; expected a tensor")
            sizes = (BATCH if not axis and size == len(image) else size for axis, size in enumerate(tensor.shape))
            specs.append(TensorSpec(name, tuple(sizes), str(tensor.dtype).removeprefix("torch.")))
        return tuple(specs)


@final
class OnnxRuntimeRunner(Runner):
    """An ONNX file in ONNX Runtime.

    Args:
        path: the file; external data is looked for beside it.
        threads: threads within an operator; operators run one after the other. None: one per physical core.
        providers: which of the library's back ends to use, the preferred one first.
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
        name: str = "onnxruntime",
    ) -> None:
        _check_threads(threads)
        self.name, self.threads = name, threads
        with located(str(path)):
            self._session = _session(Path(path), threads, list(providers))
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
        session = _still_open(self._session, self.name)
        try:
            arrays = session.run(self._names, dict(feed))
        except Exception as error:  # onnxruntime has a dozen exception types without a common base
            raise GatedeployError(f"{self.name} failed: {error}") from error
        return dict(zip(self._names, arrays, strict=True))

    def close(self) -> None:
        """See `Runner`."""
        self._session = None


def flat_predictions(predictions: Any) -> dict[str, Any]:
    """Predictions by output name: a task's own name, or `task_0`, `task_1`, … where it predicts a structure of tensors.

    Raises:
        InputError: it is no dict, a task predicts nothing, or two outputs get one name.
    """
    if not isinstance(predictions, Mapping):
        raise InputError(f"the network returns a {type(predictions).__name__}; expected a dict of predictions by task")
    flat: dict[str, Any] = {}
    for task, prediction in predictions.items():
        leaves = pytree.tree_leaves(prediction)
        if not leaves:
            raise InputError(f"task {task!r} predicts nothing; expected a tensor, or tensors in a tuple or dict")
        alone = len(leaves) == 1 and leaves[0] is prediction
        for position, leaf in enumerate(leaves):
            name = str(task) if alone else f"{task}_{position}"
            if name in flat:
                raise InputError(f"two outputs would be called {name!r}; rename a task")
            flat[name] = leaf
    return flat


def check_feed(feed: Mapping[str, Array], inputs: Sequence[TensorSpec]) -> None:
    """Raise `InputError`, naming the input, what was given and what is expected, unless `feed` fits `inputs`."""
    names = [spec.name for spec in inputs]
    if not isinstance(feed, Mapping):
        raise InputError(f"got a {type(feed).__name__}; expected a dict of arrays by input name: {', '.join(names)}")
    for name in feed:
        if name not in names:
            raise InputError(f"there is no input {name!r}; this network takes {', '.join(names)}{closest(name, names)}")
    for spec in inputs:
        if spec.name not in feed:
            raise InputError(f"input {spec.name!r} is missing; expected {spec}")
        array = feed[spec.name]
        if not isinstance(array, np.ndarray):
            raise InputError(f"input {spec.name!r}: got a {type(array).__name__}, expected a numpy array of {spec}")
        if array.dtype != spec.dtype:
            remedy = PIXELS if array.dtype == np.uint8 else f".astype('{spec.dtype}') makes it so"
            raise InputError(f"input {spec.name!r}: got {array.dtype}, expected {spec.dtype}; {remedy}")
        _check_shape(array.shape, spec)


def _check_shape(shape: tuple[int, ...], spec: TensorSpec) -> None:
    if len(shape) != len(spec.shape):
        remedy = "; array[None] adds the batch axis" if len(shape) + 1 == len(spec.shape) else ""
        raise InputError(f"input {spec.name!r}: got shape {shape}, expected {spec}{remedy}")
    for axis, (size, wanted) in enumerate(zip(shape, spec.shape, strict=True)):
        if size == wanted or (isinstance(wanted, str) and size > 0):
            continue
        what = AXES[axis] if len(shape) == len(AXES) else f"axis {axis}"
        turned = len(shape) == len(AXES) and (shape[3], *shape[1:3]) == spec.shape[1:]
        remedy = "; channels come first: array.transpose(0, 3, 1, 2)" if turned else ""
        least = "at least 1" if isinstance(wanted, str) else wanted
        raise InputError(f"input {spec.name!r}: {what} {size}, expected {least}: got {shape}, expected {spec}{remedy}")


def _still_open(resource: Any, name: str) -> Any:
    if resource is not None:
        return resource
    raise InputError(f"this {name} runner is closed; open another")


def _check_threads(threads: int | None) -> None:
    if threads is not None and threads < 1:
        raise InputError(f"threads must be at least 1, got {threads}")


def _session(path: Path, threads: int | None, providers: list[str]) -> Any:
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
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # see infer
        raise InputError(f"onnxruntime cannot load it ({error}); write or copy it again") from error


def _tensor_spec(port: Any) -> TensorSpec:
    shape = tuple(size if isinstance(size, (int, str)) else f"axis_{axis}" for axis, size in enumerate(port.shape))
    dtype = port.type.removeprefix("tensor(").removesuffix(")")
    return TensorSpec(port.name, shape, {"float": "float32", "double": "float64"}.get(dtype, dtype))
