"""What a bundle says about itself."""

from __future__ import annotations

from dataclasses import dataclass, field

from gatedeploy.exporters.reference import Fingerprint
from gatedeploy.runners.base import TensorSpec
from gatedeploy.specs import InputSpec, Task

MANIFEST = "manifest.json"
LISTING = ".layers.txt"
"""What the list of an engine's layers is called: as the engine, with this in place of its suffix."""


@dataclass(frozen=True)
class FileEntry:
    """A file of the bundle: its size and the SHA-256 of its content, in hexadecimal."""

    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Costs:
    """What one picture costs.

    Args:
        macs: multiply-adds of convolutions and linear layers.
        params: trained numbers.
        size_bytes: of the network's files.
        gated: multiply-adds and parameters of the network as trained, empty when not known.
    """

    macs: int
    params: int
    size_bytes: int
    gated: dict[str, int]


Errors = dict[str, dict[str, float]]
"""Largest differences relative to an output's scale, by batch size and output."""


def largest(errors: Errors) -> float | None:
    """The largest of all; None where nothing was compared."""
    return max((error for outputs in errors.values() for error in outputs.values()), default=None)


@dataclass(frozen=True)
class Verification:
    """How far the exported network, in float32, was from PyTorch in float64 when it was written.

    Args:
        runtime: what ran it, with its version.
        tolerance: the largest error that was allowed.
        seed: of the pictures, see `reference_picture`.
        error: batch size to output to largest difference, relative to the output's scale.
    """

    runtime: str
    tolerance: float
    seed: int
    error: Errors


@dataclass(frozen=True)
class Reference:
    """What the network answers to the picture that `seed` and `batch` make (see `gatedeploy.exporters.reference`).

    Args:
        seed: of the picture.
        batch: how many pictures.
        tolerance: how far another machine may be off, relative to an output's largest value.
        outputs: by output, in float64; of a network of reduced precision, as it was computed where it was written.
    """

    seed: int
    batch: int
    tolerance: float
    outputs: dict[str, Fingerprint]


@dataclass(frozen=True)
class Reduction:
    """What reduced precision costs, judged by the tasks' own metrics.

    Args:
        calibration: how the ranges of 8 bits were chosen; "" for other precisions.
        calibrated_on: how many pictures ranges were taken from.
        judged_on: how many pictures the metrics were measured on.
        data: where both come from.
        float32: what the network reached in float32, by task and metric; NaN where a metric is no number.
        reduced: what it reaches now.
        lost: by task, what its headline metric lost in percent; negative where it gained.
        max_drop: what a task was allowed to lose.
        layers: how many nodes compute in reduced precision.
        kept: nodes that stayed in float32, for their values are too large for the type or their errors too costly.
        layer_errors: by node, ‖output − exact‖ / ‖exact‖ where that node alone is reduced; empty when not measured.
        runtime: what ran it for `error`, with its version.
        error: as in `Verification`, of the reduced network, on pictures of noise, whose values the calibration never
            saw: what is judged is `lost`, and this tells how far apart two runtimes may be.
    """

    calibration: str
    calibrated_on: int
    judged_on: int
    data: str
    float32: dict[str, dict[str, float]]
    reduced: dict[str, dict[str, float]]
    lost: dict[str, float]
    max_drop: float
    layers: int
    kept: tuple[str, ...]
    layer_errors: dict[str, float]
    runtime: str
    error: Errors

    @property
    def rows(self) -> list[list[str]]:
        """Task, metric, what it was in float32 and what it is now, for a table."""
        return [
            [task, metric, f"{value:.4g}", f"{self.reduced[task][metric]:.4g}"]
            for task, metrics in self.float32.items()
            for metric, value in metrics.items()
        ]


@dataclass(frozen=True)
class Engine:
    """The network compiled for one runtime.

    Args:
        runtime: what runs it: "tensorrt", "tensorrt-rtx", "openvino", "aoti", "executorch".
        version: of the library; TensorRT's and AOTInductor's run in no other one.
        targets: what it was built for, e.g. ("SM86",) or ("x86_64", "avx512"); empty: the library's own choice.
        batches: the smallest, the usual and the largest batch size that it takes; None: any.
        inputs: what it takes.
        outputs: what it returns, in order.
        layers: how many layers compute in each type, e.g. {"float32": 61, "int64": 3}; empty when not known.
        error: how far it is from the ONNX network in float32, as in `Verification`, or, in reduced precision, from what
            that answers; empty for one that was built and not run, which TensorRT's need a GPU for.
        lost: in reduced precision, by task, what its headline metric lost in percent in this runtime.
    """

    runtime: str
    version: str
    targets: tuple[str, ...]
    batches: tuple[int, int, int] | None
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    layers: dict[str, int] = field(default_factory=dict)
    error: Errors = field(default_factory=dict)
    lost: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """All that `manifest.json` says.

    Args:
        formats: the formats it holds, e.g. ("onnx", "trt").
        precision: of weights and arithmetic, e.g. "fp32".
        input: the picture, and how it is made of 8-bit pixels.
        tasks: the questions.
        outputs: the answers' tensors, in order.
        task_of: which task each output belongs to.
        costs: what a picture costs.
        metrics: what the network reached, metric by metric for each task.
        tools: versions of what made it.
        flipped_gates: how many choices of gates were flipped after training, which makes another network of it.
        source: "file" and "sha256" of what it was made of; empty when that was no file.
        reduction: what reduced precision costs; None for float32.
        verification: the comparison with PyTorch when it was written.
        reference: what to compare with where there is no PyTorch network.
        engines: by file, the compiled forms of the network.
        files: every other file of the folder, by its path with forward slashes.
    """

    formats: tuple[str, ...]
    precision: str
    input: InputSpec
    tasks: tuple[Task, ...]
    outputs: tuple[TensorSpec, ...]
    task_of: dict[str, str]
    costs: Costs
    metrics: dict[str, dict[str, float | None]]
    flipped_gates: int
    tools: dict[str, str]
    source: dict[str, str]
    reduction: Reduction | None
    verification: Verification
    reference: Reference
    engines: dict[str, Engine]
    files: dict[str, FileEntry]


def labels_file(task: Task) -> str | None:
    """The file of the bundle that holds the task's class names, one a line; None for a task without classes.

    Letters outside of ASCII, which file systems and archives change on their way, are written as their numbers.
    """
    name = "".join(letter if letter.isascii() else f"-{ord(letter):x}-" for letter in task.name)
    return f"labels/{name}.txt" if task.classes else None
