"""`manifest.json`: a manifest as text, and read back from a text that may come from a stranger."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from gatedeploy.errors import CheckError, InputError
from gatedeploy.exporters.manifest import (
    MANIFEST,
    Costs,
    Engine,
    FileEntry,
    Manifest,
    Reduction,
    Reference,
    Verification,
    labels_file,
)
from gatedeploy.exporters.reference import Fingerprint
from gatedeploy.runners.base import TensorSpec
from gatedeploy.specs import InputSpec, Task

FORMAT = "gatedeploy.bundle"
VERSION = 2
SEAL = "content_sha256"
"""The key of the manifest's own hash, see `sealed`."""

FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}(/[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}){0,5}")
"""Names that stay in the folder on every system: no `..`, no hidden file, no drive, no backslash, not absolute."""

BATCHES = ("min", "opt", "max")
"""What the batch sizes of an engine are called."""

MAX_BATCH = 64
"""A stranger's manifest shall not make us allocate more pictures than this."""


def manifest_to_json(manifest: Manifest) -> str:
    """The text of `manifest.json`."""
    spec = manifest.input
    mean, std = spec.moments
    document = {
        "format": FORMAT,
        "version": VERSION,
        "formats": list(manifest.formats),
        "precision": manifest.precision,
        "inputs": [
            {
                "name": spec.name,
                "shape": ["batch", *spec.shape],
                "dtype": "float32",
                "layout": "NCHW",
                "preprocessing": {
                    "formula": "(pixel / scale - mean) / std, channel by channel",
                    "scale": 255,
                    "mean": list(mean),
                    "std": list(std),
                },
            }
        ],
        "outputs": [{**asdict(output), "task": manifest.task_of[output.name]} for output in manifest.outputs],
        "tasks": [
            {"name": task.name, "kind": task.kind, "classes": list(task.classes), "labels": labels_file(task)}
            for task in manifest.tasks
        ],
        **{key: asdict(getattr(manifest, key)) for key in ("costs", "verification", "reference")},
        **{key: getattr(manifest, key) for key in ("metrics", "flipped_gates", "tools", "source")},
        "reduction": asdict(manifest.reduction) if manifest.reduction else None,
        "engines": {name: _engine_to_plain(engine) for name, engine in sorted(manifest.engines.items())},
        "files": {name: asdict(entry) for name, entry in sorted(manifest.files.items())},
    }
    return sealed(document)


def sealed(content: Mapping[str, Any]) -> str:
    """The text of a manifest with this content and, on the line before the last, the SHA-256 of the text above it.

    Whatever reads it in whatever language hashes the bytes before the comma that comes before the seal's line.
    """
    text = json.dumps({key: value for key, value in content.items() if key != SEAL}, indent=2, allow_nan=False)
    body = text.removesuffix("\n}")
    return f'{body},\n  "{SEAL}": "{hashlib.sha256(body.encode()).hexdigest()}"\n}}\n'


def manifest_from_json(text: str) -> Manifest:
    """Read what `manifest_to_json` wrote; nothing in it is trusted.

    Raises:
        InputError: it is something else, of another version, of the wrong form, or lists a file outside of its folder.
        CheckError: it was changed or damaged since it was written.
    """
    try:
        document = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InputError(f"not complete JSON ({error}); export or copy the bundle again") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise InputError(f"not the manifest of a gatedeploy bundle (its format is not {FORMAT!r})")
    if document.get("version") != VERSION:
        raise InputError(
            f"format version {document.get('version')}; this gatedeploy reads version {VERSION}: install the one that "
            "wrote it"
        )
    try:
        if text != sealed(document):
            raise CheckError(
                "was changed, formatted anew or damaged: it is not the text that gatedeploy export wrote, sealed by "
                f"its {SEAL}; copy or export the bundle again"
            )
        return _manifest(document)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        raise InputError(f"damaged ({type(error).__name__}: {error}); export or copy the bundle again") from None


def _manifest(document: Mapping[str, Any]) -> Manifest:
    outputs = document["outputs"]
    specs = tuple(map(_port, outputs))
    tasks = tuple(_task(item) for item in document["tasks"])
    task_of = {_text(item["name"]): _text(item["task"]) for item in outputs}
    if not specs or len(task_of) != len(specs) or not set(task_of.values()) <= {task.name for task in tasks}:
        raise ValueError("outputs and tasks do not fit")
    reference = document["reference"]
    fingerprints = {_text(name): _fingerprint(item) for name, item in reference["outputs"].items()}
    if set(fingerprints) != set(task_of):
        raise ValueError("the reference has other outputs")
    engines = {_file_name(name): _engine(item) for name, item in document.get("engines", {}).items()}
    if not set(engines) <= set(document["files"]):
        raise ValueError("an engine that is not listed among the files")
    return Manifest(
        formats=_names(document["formats"]),
        precision=_text(document["precision"]),
        input=_input(document["inputs"]),
        tasks=tasks,
        outputs=specs,
        task_of=task_of,
        costs=_costs(document["costs"]),
        metrics={_text(task): _optional_numbers(values) for task, values in document["metrics"].items()},
        flipped_gates=_count(document.get("flipped_gates", 0)),
        tools=_texts(document["tools"]),
        source=_texts(document["source"]),
        reduction=None if document["reduction"] is None else _reduction(document["reduction"]),
        verification=_verification(document["verification"]),
        reference=Reference(
            _count(reference["seed"]), _batch(reference["batch"]), _number(reference["tolerance"]), fingerprints
        ),
        engines=engines,
        files={_file_name(name): _file_entry(item) for name, item in document["files"].items()},
    )


def _input(items: Any) -> InputSpec:
    (item,) = items
    batch, *sizes = _shape(item["shape"])
    channels, height, width = (_count(size) for size in sizes)
    if (batch, item["dtype"], item["layout"], item["preprocessing"]["scale"]) != ("batch", "float32", "NCHW", 255):
        raise ValueError("an input of a kind that this version does not know")
    mean, std = (tuple(_number(value) for value in item["preprocessing"][key]) for key in ("mean", "std"))
    return InputSpec(channels, height, width, mean, std, _text(item["name"]))


def _task(item: Mapping[str, Any]) -> Task:
    return Task(_text(item["name"]), item["kind"], _names(item["classes"]))


def _costs(item: Mapping[str, Any]) -> Costs:
    gated = {_text(key): _count(value) for key, value in item["gated"].items()}
    return Costs(_count(item["macs"]), _count(item["params"]), _count(item["size_bytes"]), gated)


def _verification(item: Mapping[str, Any]) -> Verification:
    return Verification(
        _text(item["runtime"]),
        None if item["tolerance"] is None else _number(item["tolerance"]),
        _count(item["seed"]),
        _errors(item["error"]),
    )


def _reduction(item: Mapping[str, Any]) -> Reduction:
    return Reduction(
        calibration=_text(item["calibration"]),
        calibrated_on=_count(item["calibrated_on"]),
        judged_on=_count(item["judged_on"]),
        data=_text(item["data"]),
        float32=_errors(item["float32"]),
        reduced=_errors(item["reduced"]),
        lost=_numbers(item["lost"]),
        max_drop=_number(item["max_drop"]),
        kept=_names(item["kept"]),
        layer_errors=_numbers(item["layer_errors"]),
    )


def _errors(items: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Numbers by batch size and output, or by task and metric."""
    return {_text(batch): _numbers(errors) for batch, errors in items.items()}


def _engine_to_plain(engine: Engine) -> dict[str, Any]:
    return {**asdict(engine), "batches": dict(zip(BATCHES, engine.batches, strict=True)) if engine.batches else None}


def _engine(item: Mapping[str, Any]) -> Engine:
    return Engine(
        _text(item["runtime"]),
        _text(item["version"]),
        _names(item["targets"]),
        None if item["batches"] is None else _batches(item["batches"]),
        tuple(map(_port, item["inputs"])),
        tuple(map(_port, item["outputs"])),
        {_text(name): _count(layers) for name, layers in item["layers"].items()},
        _errors(item["error"]),
    )


def _batches(item: Mapping[str, Any]) -> tuple[int, int, int]:
    smallest, usual, largest = (_count(item[name]) for name in BATCHES)
    if not 1 <= smallest <= usual <= largest:
        raise ValueError(f"batch sizes {smallest}, {usual}, {largest}")
    return smallest, usual, largest


def _port(item: Mapping[str, Any]) -> TensorSpec:
    return TensorSpec(_text(item["name"]), _shape(item["shape"]), _text(item["dtype"]))


def _batch(item: Any) -> int:
    if not 1 <= _count(item) <= MAX_BATCH:
        raise ValueError(f"a reference of {item} pictures")
    return int(item)


def _fingerprint(item: Mapping[str, Any]) -> Fingerprint:
    shape = tuple(_count(size) for size in item["shape"])
    first = tuple(_number(value) for value in item["first"])
    if len(first) > math.prod(shape):
        raise ValueError("more first values than values")
    mean, std, max_abs, projection = (_number(item[key]) for key in ("mean", "std", "max_abs", "projection"))
    return Fingerprint(shape, mean, std, max_abs, projection, first)


def _file_name(name: Any) -> str:
    if not FILE_NAME.fullmatch(_text(name)) or name == MANIFEST:
        raise InputError(f"lists a file {name[:80]!r}; expected plain names inside the bundle's folder. Refused")
    return str(name)


def _file_entry(item: Mapping[str, Any]) -> FileEntry:
    if not re.fullmatch(r"[0-9a-f]{64}", _text(item["sha256"])):
        raise ValueError("a SHA-256 that is none")
    return FileEntry(_count(item["size_bytes"]), item["sha256"])


def _shape(items: Any) -> tuple[int | str, ...]:
    return tuple(size if isinstance(size, str) else _count(size) for size in items)


def _text(item: Any) -> str:
    if not isinstance(item, str):
        raise TypeError(f"expected text, got {type(item).__name__}")
    return item


def _names(items: Any) -> tuple[str, ...]:
    if not isinstance(items, list):
        raise TypeError(f"expected a list, got {type(items).__name__}")
    return tuple(map(_text, items))


def _texts(items: Mapping[str, Any]) -> dict[str, str]:
    return {_text(key): _text(value) for key, value in items.items()}


def _count(item: Any) -> int:
    if type(item) is not int or item < 0:
        raise TypeError(f"expected a whole number, got {item!r}")
    return item


def _number(item: Any) -> float:
    if type(item) not in (int, float):
        raise TypeError(f"expected a number, got {type(item).__name__}")
    return float(item)


def _numbers(items: Mapping[str, Any]) -> dict[str, float]:
    return {_text(key): _number(value) for key, value in items.items()}


def _optional_numbers(items: Mapping[str, Any]) -> dict[str, float | None]:
    return {_text(key): None if value is None else _number(value) for key, value in items.items()}


def _refuse_constant(name: str) -> float:
    raise ValueError(f"the number {name}")
