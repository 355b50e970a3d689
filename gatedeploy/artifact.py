"""The two files that hold a network: `checkpoint.pt` while it is trained, `collapsed.safetensors` when it is done.

Neither holds code, and reading them runs none: a network is its graph, as JSON, and its weights.
"""

from __future__ import annotations

import json
import pickle
import shlex
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from gatedeploy.containers import container
from gatedeploy.errors import InputError, located
from gatedeploy.files import as_path, replacing_file
from gatedeploy.program import Program
from gatedeploy.program_json import graph_from_json, graph_to_json
from gatedeploy.specs import InputSpec, Task, check_tasks, input_from_plain, task_from_plain, to_plain

CHECKPOINT_FORMAT = "gatedeploy.checkpoint"
COLLAPSED_FORMAT = "gatedeploy.collapsed"
VERSION = 1
INFO = "gatedeploy.info"
A_CHECKPOINT = "a checkpoint: name one that gatedeploy train wrote"
A_COLLAPSED = "a collapsed network: name one that gatedeploy prune wrote"
A_NETWORK = "a network: name a file that gatedeploy train or gatedeploy prune wrote"


@dataclass(frozen=True)
class ModelInfo:
    """What travels with a network.

    Args:
        tasks: what it predicts.
        input: the picture it takes, and how it is made of 8-bit pixels.
        form: "gated", "shared" (one encoder), "single" (one task), "collapsed", or the name of another method.
        recipe: how it was trained, in plain values; empty when it was not trained by a recipe.
        metrics: what it reached, metric by metric for each task.
        report: what the collapse did, in plain values.
        flipped_gates: how many choices of gates were flipped after it was trained. Where there are some it is another
            network, and has no metrics.
    """

    tasks: tuple[Task, ...]
    input: InputSpec
    form: str = "gated"
    recipe: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)
    flipped_gates: int = 0

    def only(self, tasks: Iterable[str]) -> ModelInfo:
        """The same of these tasks, in this order; all of them are known."""
        known = {task.name: task for task in self.tasks}
        kept = tuple(known[name] for name in tasks)
        metrics = {task.name: self.metrics[task.name] for task in kept if task.name in self.metrics}
        return replace(self, tasks=kept, metrics=metrics)


def check_fits(info: ModelInfo, program: Program) -> None:
    """Raise `InputError` where a description and the network contradict each other."""
    known = {task.name: task for task in info.tasks}
    for name in program.outputs:
        if name not in known:
            raise InputError(
                f"the network predicts {name!r}, of which its description knows nothing: {', '.join(known)}"
            )
    if info.input.shape != program.input.shape:
        raise InputError(f"the network takes {program.input}, its description says {info.input}")


def names_only(program: Program) -> ModelInfo:
    """What travels with a network of which nothing is known but what it computes."""
    return ModelInfo(tuple(Task(name) for name in program.outputs), program.input)


def describe(net: fx.GraphModule, info: ModelInfo | None) -> None:
    """Let `net` and its copies know what travels with them, in plain values: see `info_of`."""
    net.meta[INFO] = None if info is None else _info_to_plain(info)


def info_of(net: nn.Module) -> ModelInfo | None:
    """What travels with a gated, collapsed or loaded network, as far as it is known; see `names_only`."""
    if isinstance(net, fx.GraphModule):
        plain = net.meta.get(INFO)
        return None if plain is None else _info_from_plain(plain)
    info = getattr(net, "info", None)
    return info if isinstance(info, ModelInfo) else None


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint, read.

    Args:
        program: the network in evaluation mode.
        info: what travels with it.
        training: what it takes to go on training: tensors and plain containers, None when there is nothing to resume.
    """

    program: Program
    info: ModelInfo
    training: dict[str, Any] | None


def write_checkpoint(
    path: Path | str, program: Program, info: ModelInfo, training: dict[str, Any] | None = None
) -> None:
    """Write a checkpoint; what stands at `path` is replaced when all of it is on the disk, and not before.

    `training` may hold tensors and plain containers only.
    """
    document = {
        "format": CHECKPOINT_FORMAT,
        "version": VERSION,
        "info": json.dumps(_info_to_plain(info)),
        "graph": json.dumps(graph_to_json(program)),
        "weights": dict(program.weights),
        "training": training,
    }
    with replacing_file(as_path(path)) as temporary:
        _save(document, temporary)


def read_checkpoint(path: Path | str) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        InputError: it does not exist, is damaged, is something else, or holds more than tensors and plain values.
    """
    with located(str(path)):
        if container(as_path(path), A_CHECKPOINT) == "safetensors":
            if _metadata(path).get("format") == COLLAPSED_FORMAT:
                raise InputError(f"is collapsed already; next: gatedeploy export {shlex.quote(str(path))} --onnx")
            raise InputError(f"a safetensors file; expected {A_CHECKPOINT}")
        document = _load(as_path(path))
        if not _is_ours(document):
            raise InputError(
                "a PyTorch file, but not a gatedeploy checkpoint (no format version). If it holds the weights of a "
                "backbone, name it in the recipe as model.weights"
            )
        _check_version(document.get("version"), VERSION)
        with _damage("a damaged checkpoint", "train or copy it again"):
            weights, training = document["weights"], document["training"]
            info = _info_from_plain(json.loads(document["info"]))
            program = graph_from_json(json.loads(document["graph"]), _tensors(weights), info.input)
        return Checkpoint(program, info, training)


def write_collapsed(path: Path | str, program: Program, info: ModelInfo) -> None:
    """Write a collapsed network as one safetensors file, its graph and what travels with it in the metadata."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    document = {"info": _info_to_plain(info), "graph": graph_to_json(program)}
    metadata = {"format": COLLAPSED_FORMAT, "version": str(VERSION), "document": json.dumps(document)}
    weights = {name: tensor.contiguous() for name, tensor in _unshared(program.weights).items()}
    with replacing_file(as_path(path)) as temporary:
        try:
            save_file(weights, temporary, metadata)
        except SafetensorError as error:  # also when the disk is full
            raise OSError(str(error)) from error


def read_collapsed(path: Path | str) -> tuple[Program, ModelInfo]:
    """Read a collapsed network.

    Raises:
        InputError: it does not exist, is damaged or is something else.
    """
    with located(str(path)):
        if container(as_path(path), A_COLLAPSED) == "torch":
            if _is_ours(_load(as_path(path))):
                raise InputError(
                    "a checkpoint, whose branches are all still there; collapse it first: gatedeploy prune "
                    f"{shlex.quote(str(path))}"
                )
            raise InputError(f"a PyTorch file; expected {A_COLLAPSED}")
        with _safetensors(path) as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a mapping
        if metadata.get("format") != COLLAPSED_FORMAT:
            raise InputError(
                "a safetensors file, but not a collapsed network of gatedeploy (no format version); gatedeploy prune "
                "makes one of a checkpoint"
            )
        _check_version(metadata.get("version"), str(VERSION))
        with _damage("a damaged network", "write or copy it again"):
            document = json.loads(metadata["document"])
            info = _info_from_plain(document["info"])
            return graph_from_json(document["graph"], weights, info.input), info


def is_checkpoint(path: Path | str) -> bool:
    """Whether a file is to be read as a checkpoint rather than as a collapsed network, by what contains it.

    Raises:
        InputError: it is neither.
    """
    with located(str(path)):
        return container(as_path(path), A_NETWORK) == "torch"


def _save(document: dict[str, Any], path: Path) -> None:
    try:
        with path.open("wb") as file:
            torch.save(document, file)
    except RuntimeError as error:
        # PyTorch tells of a full disk as of a broken archive; the reason is in the context.
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def _load(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is odd about a foreign file is told below, once
            with path.open("rb") as file:  # by its name, PyTorch would guess what it is
                return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(
            "holds Python objects other than tensors and plain values, which could run code; refused. "
            "gatedeploy writes no such file: get it from whoever wrote it as a checkpoint of weights only"
        ) from None
    except Exception:  # whatever the bytes lead the unpickler to, told in paragraphs
        raise InputError("a damaged PyTorch file, or one of another kind; copy it again, or train it again") from None


def _is_ours(document: Any) -> bool:
    return isinstance(document, dict) and document.get("format") == CHECKPOINT_FORMAT


@contextmanager
def _safetensors(path: Path | str) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            yield file
    except (SafetensorError, OSError):
        raise InputError(
            "a truncated or damaged safetensors file; copy it again, or make it again with gatedeploy prune"
        ) from None


def _metadata(path: Path | str) -> dict[str, str]:
    with _safetensors(path) as file:
        return file.metadata() or {}


def _check_version(version: object, expected: int | str) -> None:
    if type(version) is not type(expected) or version != expected:
        found = str(version)[:50]
        raise InputError(
            f"format version {found}; this gatedeploy reads version {VERSION}: install the one that wrote it"
        )


@contextmanager
def _damage(what: str, remedy: str) -> Iterator[None]:
    try:
        yield
    except RecursionError:
        raise InputError(f"{what} (nested too deep); {remedy}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{what} ({type(error).__name__}: {error}); {remedy}") from None


def _tensors(weights: Any) -> dict[str, Tensor]:
    if not isinstance(weights, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in weights.items()
    ):
        raise TypeError("weights must be tensors by name")
    return dict(weights)


def _unshared(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Safetensors refuses tensors that share memory; copies of those that do."""
    seen: set[int] = set()
    alone = {}
    for name, tensor in weights.items():
        memory = tensor.untyped_storage().data_ptr()
        alone[name] = tensor.clone() if memory in seen else tensor
        seen.add(memory)
    return alone


def _info_to_plain(info: ModelInfo) -> dict[str, Any]:
    plain = to_plain(info)
    return {**plain, "tasks": [to_plain(task) for task in info.tasks], "input": to_plain(info.input)}


def _info_from_plain(plain: Mapping[str, Any]) -> ModelInfo:
    known = {key: plain[key] for key in ("form", "recipe", "metrics", "report")}
    if not isinstance(known["form"], str) or not all(isinstance(known[key], dict) for key in known if key != "form"):
        raise TypeError("its description is not of the expected form")
    for values in known["metrics"].values():
        if not isinstance(values, dict) or not all(isinstance(number, (int, float)) for number in values.values()):
            raise TypeError("its metrics are not numbers by task and metric")
    known["flipped_gates"] = plain.get("flipped_gates", 0)
    if type(known["flipped_gates"]) is not int or known["flipped_gates"] < 0:
        raise TypeError("its flipped gates are no count")
    tasks = check_tasks(tuple(task_from_plain(task) for task in plain["tasks"]))
    return ModelInfo(tasks, input_from_plain(plain["input"]), **known)
