"""What a network is asked and what it is fed: plain values that every floor of the house speaks in."""

from __future__ import annotations

import dataclasses
import keyword
import math
import sys
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

from gatedeploy.errors import InputError, closest

TaskKind = Literal["classification", "segmentation", "depth", "normals", "saliency", "edges"]
TASK_KINDS: tuple[str, ...] = get_args(TaskKind)

Spec = TypeVar("Spec")

SHARED = "shared"
"""Name of the branch that belongs to no task."""

IGNORED_CLASS = 255
"""The segmentation label that counts nowhere."""


@dataclass(frozen=True)
class Task:
    """One question that is asked of the picture.

    Args:
        name: an identifier; names the task's branch and the network's output. `shared` is taken.
        kind: what its labels are; None for a task that is only gated and never trained or measured.
            `classification` (batch,) int64 · `segmentation` (batch, height, width) int64, 255 is ignored ·
            `depth` (batch, 1, height, width) float, NaN is ignored ·
            `normals` (batch, 3, height, width) unit vectors, a zero vector is ignored ·
            `saliency`, what stands out, and `edges` (batch, height, width) int64, 1 for yes, 0 for no, 255 is ignored.
        classes: the class names, in the order of the labels; empty but for classification and segmentation.
        weight: ω_t of InterroGate eq. 1.
        sparsity_target: τ_t of eq. 4, the share of task-specific channels that costs nothing, in [0, 1].
    """

    name: str
    kind: TaskKind | None = None
    classes: tuple[str, ...] = ()
    weight: float = 1.0
    sparsity_target: float = 0.0

    def __post_init__(self) -> None:
        if not _is_identifier(self.name) or self.name.startswith("_"):
            raise InputError(f"task name {self.name!r}: expected an identifier such as 'depth' or 'human_parts'")
        if self.name == SHARED:
            raise InputError(f"task name {SHARED!r} is taken by the shared branch; choose another")
        if self.kind is not None and self.kind not in TASK_KINDS:
            near = closest(str(self.kind), TASK_KINDS)
            raise InputError(f"task {self.name}: no such kind {self.kind!r}; there are {', '.join(TASK_KINDS)}{near}")
        if not (isinstance(self.classes, tuple) and all(isinstance(name, str) for name in self.classes)):
            raise InputError(f"task {self.name}: classes must be a tuple of names, got {self.classes!r}")
        if len(set(self.classes)) < len(self.classes):
            twice = next(name for name in self.classes if self.classes.count(name) > 1)
            raise InputError(f"task {self.name}: two classes are called {twice!r}; names must differ")
        if self.kind in ("classification", "segmentation") and len(self.classes) < 2:
            raise InputError(f"task {self.name}: {self.kind} needs the names of at least 2 classes, got {self.classes}")
        if not (_is_number(self.weight) and self.weight > 0):
            raise InputError(f"task {self.name}: weight must be a positive number, got {self.weight!r}")
        if not (_is_number(self.sparsity_target) and 0 <= self.sparsity_target <= 1):
            raise InputError(f"task {self.name}: sparsity_target must be in [0, 1], got {self.sparsity_target!r}")

    @property
    def channels(self) -> int:
        """How many channels the task's prediction has."""
        if self.kind is None:
            raise InputError(f"task {self.name} has no kind, so the width of its prediction is unknown")
        return {"depth": 1, "normals": 3, "saliency": 1, "edges": 1}.get(self.kind, len(self.classes))

    @property
    def dense(self) -> bool:
        """Whether the prediction is a map, one answer per pixel."""
        return self.kind not in (None, "classification")


def check_tasks(tasks: tuple[Task, ...]) -> tuple[Task, ...]:
    """Return `tasks`, or raise `InputError` when there are none or two share a name."""
    if not tasks:
        raise InputError("no tasks were given; a multi-task network needs at least one")
    seen: set[str] = set()
    for task in tasks:
        if not isinstance(task, Task):
            raise InputError(f"tasks: expected a Task for each, got {task!r}; write Task({task!r})")
        if task.name in seen:
            raise InputError(f"two tasks are called {task.name!r}; names must differ")
        seen.add(task.name)
    return tasks


@dataclass(frozen=True)
class InputSpec:
    """The picture a network is fed: `(batch, channels, height, width)` float32, named `name`.

    `x = (pixel / 255 − mean) / std` per channel makes it of an 8-bit picture; deployments repeat exactly this.
    """

    channels: int
    height: int
    width: int
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    name: str = "image"

    def __post_init__(self) -> None:
        if not _is_identifier(self.name):
            raise InputError(f"the input is called {self.name!r}, which is no identifier such as 'image'")
        for size in self.shape:
            if type(size) is not int or size < 1:
                raise InputError(f"input {self.shape}: channels, height and width must be whole numbers, at least 1")
        for field, values in (("mean", self.mean), ("std", self.std)):
            if not (isinstance(values, tuple) and all(_is_number(value) for value in values)):
                raise InputError(f"input {field} must be a tuple of numbers, one per channel; got {values!r}")
            if values and len(values) != self.channels:
                raise InputError(f"input {field} has {len(values)} values for {self.channels} channels")
        if not all(value > 0 for value in self.std):
            raise InputError(f"input std must be positive, since pixels are divided by it; got {self.std}")

    @property
    def moments(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation, one number per channel; 0 and 1 where the picture is taken as it is."""
        return self.mean or (0.0,) * self.channels, self.std or (1.0,) * self.channels

    @property
    def shape(self) -> tuple[int, int, int]:
        """`(channels, height, width)` of one picture."""
        return (self.channels, self.height, self.width)


def _is_identifier(name: object) -> bool:
    """Whether Python would take it for a name as it is written: it brings letters such as ﬁ to another form."""
    return (
        isinstance(name, str)
        and name.isidentifier()
        and not keyword.iskeyword(name)
        and unicodedata.normalize("NFKC", name) == name
    )


def _is_number(value: object) -> bool:
    """Whether `value` is a number that a float can hold; a file may hold anything."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def finite(document: Any) -> Any:
    """The document with None for every number that is none: JSON knows no NaN and no infinity."""
    if isinstance(document, Mapping):
        return {key: finite(value) for key, value in document.items()}
    if isinstance(document, (list, tuple)):
        return [finite(value) for value in document]
    return None if isinstance(document, float) and not math.isfinite(document) else document


def to_plain(spec: Any) -> dict[str, Any]:
    """A spec as a dict of JSON types."""
    plain: dict[str, Any] = {}
    for field in dataclasses.fields(spec):
        value = getattr(spec, field.name)
        plain[field.name] = list(value) if isinstance(value, tuple) else value
    return plain


def task_from_plain(plain: Mapping[str, Any]) -> Task:
    """Read a task that `to_plain` wrote; anything else raises `InputError`."""
    return _from_plain(Task, plain)


def input_from_plain(plain: Mapping[str, Any]) -> InputSpec:
    """Read an input spec that `to_plain` wrote; anything else raises `InputError`."""
    return _from_plain(InputSpec, plain)


def _from_plain(cls: Callable[..., Spec], plain: Mapping[str, Any]) -> Spec:
    if not isinstance(plain, Mapping):
        raise InputError(f"not a {cls.__name__}: expected its fields by name, got {plain!r}")
    known = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    for key in plain:
        if key not in known:
            raise InputError(
                f"{key!r} is no field of {cls.__name__}; known are {', '.join(known)}{closest(key, known)}"
            )
    try:
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in plain.items()})
    except TypeError as error:  # a field is missing
        raise InputError(f"not a {cls.__name__}: {error}") from None
