"""Run a network on numpy arrays, whatever computes it, so that parity and latency are each one piece of code."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, final

import numpy as np
import numpy.typing as npt

from gatedeploy.errors import InputError, check_type, closest
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


def picture_of(input: InputSpec, dtype: str = "float32") -> TensorSpec:
    """The picture that a network takes, as a tensor with a free batch size."""
    return TensorSpec(input.name, (BATCH, *input.shape), dtype)


def with_free_sizes(sizes: Iterable[int]) -> tuple[int | str, ...]:
    """Sizes as a `TensorSpec` has them, of a library to which a negative number is a size that is free."""
    return tuple(size if size >= 0 else (f"axis_{axis}" if axis else BATCH) for axis, size in enumerate(sizes))


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


def check_batch(feed: Mapping[str, Array], image: TensorSpec, batches: tuple[int, int]) -> None:
    """Raise `InputError` for a batch that a compiled network was not made for: smaller or larger than `batches`."""
    smallest, largest = batches
    size = len(feed[image.name])
    if not smallest <= size <= largest:
        raise InputError(
            f"input {image.name!r}: a batch of {size}; this engine takes {smallest} to {largest}: ask in parts, or "
            "export with other --min-shapes and --max-shapes"
        )


def still_open(resource: Any, name: str) -> Any:
    """`resource`; `InputError` once the runner is closed and has let go of it."""
    if resource is not None:
        return resource
    raise InputError(f"this {name} runner is closed; open another")


def check_threads(threads: int | None) -> None:
    """Raise `InputError` for a number of threads that nothing can run on."""
    check_type("threads", threads, int, type(None))
    if threads is not None and threads < 1:
        raise InputError(f"threads must be at least 1, got {threads}")
