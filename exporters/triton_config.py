"""`config.pbtxt`: what NVIDIA's Triton Inference Server has to know of a network.

The message is `ModelConfig` of github.com/triton-inference-server/common, protobuf/model_config.proto; what its fields
mean is told in github.com/triton-inference-server/server, docs/user_guide/model_configuration.md and batcher.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from gatedeploy.errors import InputError
from gatedeploy.exporters.manifest import Engine, Manifest
from gatedeploy.exporters.precision.table import PRECISIONS
from gatedeploy.runners.base import BATCH, TensorSpec, picture_of
from gatedeploy.specs import Task

MAX_BATCH = 32
"""The largest batch that Triton makes for the ONNX network, which takes any; engines are told theirs when built."""

QUEUE_DELAY = 100
"""How many microseconds a picture may wait for others; batcher.md's example, small beside what a network takes."""

ONNX, TENSORRT = "onnxruntime_onnx", "tensorrt_plan"
"""Triton's names of what runs the files `model.onnx` and `model.plan`."""

TYPES = {
    "bool": "TYPE_BOOL",
    "uint8": "TYPE_UINT8",
    "int8": "TYPE_INT8",
    "int16": "TYPE_INT16",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "float16": "TYPE_FP16",
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
}
"""By numpy's name, see "Datatypes" in model_configuration.md."""


Message: TypeAlias = "tuple[tuple[str, str | int | list[int] | Message], ...]"
"""Fields of protobuf's text form, in order; a field that is there several times is repeated."""


class Word(str):
    """A name of an enumeration, which is written without quotes."""


@dataclass(frozen=True)
class Served:
    """One way in which Triton runs a bundle's network.

    Args:
        name: Triton's name of the model, which is its folder's, too.
        platform: what runs it, `ONNX` or `TENSORRT`.
        batches: the usual and the largest batch size; None for the usual one: no size is better than others.
        inputs: what it takes; the first axis is the batch.
        outputs: what it returns.
        gpu: whether it runs on GPUs alone; else Triton chooses.
        notes: sentences for whoever reads the file.
    """

    name: str
    platform: str
    batches: tuple[int | None, int]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    gpu: bool = False
    notes: tuple[str, ...] = ()


def served_onnx(manifest: Manifest, name: str) -> Served:
    """The ONNX network of a bundle."""
    picture, gpu = picture_of(manifest.input), bool(PRECISIONS[manifest.precision].unfit)
    return Served(name, ONNX, (None, MAX_BATCH), (picture,), manifest.outputs, gpu=gpu)


def served_engine(engine: Engine, name: str) -> Served:
    """An engine of TensorRT.

    Raises:
        InputError: it does not take single pictures, and Triton sends what it has when it has waited long enough.
    """
    smallest, usual, largest = engine.batches or (1, 1, 1)
    if smallest > 1:
        raise InputError(
            f"the TensorRT engine takes batches from {smallest} on, and Triton also sends single pictures; export it "
            "with --min-shapes 1"
        )
    targets = ", ".join(engine.targets) or "the GPU of the machine that built it"
    note = f"An engine of TensorRT {engine.version} for {targets}: Triton has to have the same ones."
    return Served(name, TENSORRT, (usual, largest), engine.inputs, engine.outputs, notes=(note,))


def label_file(task: Task) -> str:
    """The file beside `config.pbtxt` with the class names of a task that has classes, one a line."""
    return f"{task.name}_labels.txt"


def config_text(served: Served, manifest: Manifest) -> str:
    """The content of `config.pbtxt`.

    Args:
        served: how the network is run.
        manifest: of the bundle; names the tasks, their classes and how pictures are prepared.

    Raises:
        InputError: a tensor is of a kind that Triton does not have: its type, its sizes, or a name that is no text.
    """
    tasks = {task.name: task for task in manifest.tasks}
    if unknown := [output.name for output in served.outputs if output.name not in manifest.task_of]:
        raise InputError(f"{served.name} returns {unknown[0]!r}, of which the bundle's manifest knows nothing")
    owners = {output.name: tasks[manifest.task_of[output.name]] for output in served.outputs}
    message: Message = (
        ("name", served.name),
        ("platform", served.platform),
        ("max_batch_size", served.batches[1]),
        *(("input", _tensor(spec)) for spec in served.inputs),
        *(("output", (*_tensor(spec), *_labels(spec, owners[spec.name]))) for spec in served.outputs),
        *_batching(*served.batches),
        *((("instance_group", (("kind", Word("KIND_GPU")),)),) if served.gpu else ()),
        *(
            ("parameters", (("key", key), ("value", (("string_value", value),))))
            for key, value in _told(manifest, owners)
        ),
    )
    comments = [f"# {_on_one_line(comment)}" for comment in ("Written by gatedeploy.", *served.notes)]
    return "".join(f"{line}\n" for line in (*comments, *lines(message)))


def lines(message: Message, indent: str = "") -> Iterator[str]:
    """A message in protobuf's text form, see protobuf.dev/reference/protobuf/textformat-spec."""
    for name, value in message:
        if isinstance(value, tuple):
            yield f"{indent}{name} {{"
            yield from lines(value, f"{indent}  ")
            yield f"{indent}}}"
        elif isinstance(value, str) and not isinstance(value, Word):
            yield f"{indent}{name}: {quoted(value)}"
        else:
            yield f"{indent}{name}: {value}"


def quoted(text: str) -> str:
    """A string literal; what cannot be printed is written as the octal numbers of its UTF-8 bytes.

    Raises:
        InputError: it is no text: half a character, which JSON can hold and UTF-8 cannot.
    """
    try:
        return f'"{"".join(map(_character, text))}"'
    except UnicodeEncodeError:
        raise InputError(f"{text!r} is no text that UTF-8 can hold, and Triton has no other") from None


def _character(one: str) -> str:
    if one in '"\\':
        return f"\\{one}"
    return one if one.isprintable() else "".join(f"\\{byte:03o}" for byte in one.encode())


def _on_one_line(text: str) -> str:
    """Versions come from the manifest, perhaps a stranger's, and must not end a comment."""
    return "".join(one if one.isprintable() else " " for one in text)


def _tensor(spec: TensorSpec) -> Message:
    """Name, type and sizes without the batch, which Triton puts before them."""
    if spec.dtype not in TYPES:
        raise InputError(f"{spec.name!r} is {spec}, a type that Triton does not have; it has {', '.join(TYPES)}")
    if not spec.shape or spec.shape[0] != BATCH:
        raise InputError(f"{spec.name!r} is {spec}; Triton makes batches along the first axis, which is not free here")
    if not spec.name or 0 in spec.shape:
        raise InputError(f"{spec.name!r} is {spec}; Triton takes tensors with a name, and none without content")
    sizes = [size if isinstance(size, int) else -1 for size in spec.shape[1:]]
    said: Message = (("name", spec.name), ("data_type", Word(TYPES[spec.dtype])), ("dims", sizes or [1]))
    # One number per picture: Triton forbids empty dims, and this is what it takes instead ("Reshape").
    return said if sizes else (*said, ("reshape", (("shape", []),)))


def _labels(spec: TensorSpec, task: Task) -> Message:
    """The class names, where the output is one score per class; in a map Triton would count places as classes."""
    scores = task.kind == "classification" and spec.shape[1:] == (len(task.classes),)
    return (("label_filename", label_file(task)),) if scores else ()


def _batching(usual: int | None, largest: int) -> Message:
    """How requests are put together."""
    if largest == 1:
        return ()
    # "Preferred batch sizes should not be used for most models" (batcher.md): an engine has one, ONNX has none.
    preferred: Message = () if usual is None else (("preferred_batch_size", sorted({usual, largest})),)
    return (("dynamic_batching", (*preferred, ("max_queue_delay_microseconds", QUEUE_DELAY))),)


def _told(manifest: Manifest, owners: dict[str, Task]) -> Iterator[tuple[str, str]]:
    """What Triton does not use and hands on to clients that ask for it (GET v2/models/NAME/config)."""
    mean, std = map(list, manifest.input.moments)
    yield "preprocessing", "(pixel / 255 - mean) / std, channels first"
    yield "mean", json.dumps(mean)
    yield "std", json.dumps(std)
    for name, task in owners.items():
        if task.classes:
            yield f"labels.{name}", label_file(task)
