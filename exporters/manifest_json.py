"""`manifest.json`: a manifest as text, and read back from a text that may come from a stranger."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any

from gatedeploy.errors import CheckError, InputError, located
from gatedeploy.exporters.json_field import Field
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
from gatedeploy.exporters.precision.table import PRECISIONS
from gatedeploy.exporters.reference import Fingerprint
from gatedeploy.runners.base import BATCH, TensorSpec
from gatedeploy.specs import InputSpec, Task, finite

FORMAT = "gatedeploy.bundle"
VERSION = 3
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
        "reduction": _reduction_to_plain(manifest.reduction) if manifest.reduction else None,
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
        return _manifest(Field(document))
    except (ValueError, OverflowError, RecursionError) as error:  # of texts that cannot be encoded, and the like
        raise InputError(f"damaged ({error}); export or copy the bundle again") from None


def _manifest(document: Field) -> Manifest:
    outputs = document["outputs"].items()
    specs = tuple(map(_port, outputs))
    tasks = document["tasks"].all(_task)
    task_of = {output["name"].text(): output["task"].one_of([task.name for task in tasks]) for output in outputs}
    if not specs or len(task_of) != len(specs):
        document["outputs"].refuse("no output, or two of one name")
    files = {_file_name(name): entry for name, entry in document["files"].members(_file_entry).items()}
    engines = document["engines"].members(_engine)
    if not set(engines) <= set(files):
        document["engines"].refuse("holds one that is not listed among the files")
    return Manifest(
        formats=document["formats"].all(Field.text),
        precision=document["precision"].one_of(PRECISIONS),
        input=_input(document["inputs"]),
        tasks=tasks,
        outputs=specs,
        task_of=task_of,
        costs=_costs(document["costs"]),
        metrics=document["metrics"].members(lambda task: task.members(lambda item: item.optional(Field.number))),
        flipped_gates=document["flipped_gates"].count(),
        tools=document["tools"].members(Field.text),
        source=document["source"].members(Field.text),
        reduction=document["reduction"].optional(_reduction),
        verification=_verification(document["verification"]),
        reference=_reference(document["reference"], task_of),
        engines=engines,
        files=files,
    )


def _input(inputs: Field) -> InputSpec:
    if len(inputs.items()) != 1:
        inputs.refuse(f"expected one picture, got {len(inputs.value)}")
    (item,) = inputs.items()
    prepared = item["preprocessing"]
    known = {"float32": item["dtype"], "NCHW": item["layout"], 255: prepared["scale"]}
    for value, field in known.items():
        if field.value != value:
            field.refuse(f"expected {value!r}, which is all that this version knows")
    batch, *sizes = item["shape"].items() or [Field(None)]
    if batch.value != BATCH or len(sizes) != 3:
        item["shape"].refuse('expected "batch", channels, height and width')
    channels, height, width = (size.count() for size in sizes)
    mean, std = (prepared[key].all(Field.number) for key in ("mean", "std"))
    with located(item.where):
        return InputSpec(channels, height, width, mean, std, item["name"].text())


def _task(item: Field) -> Task:
    with located(item.where):
        task = Task(item["name"].text(), item["kind"].value, item["classes"].all(Field.text))
    if item["labels"].value != labels_file(task):
        item["labels"].refuse(f"expected {json.dumps(labels_file(task))}")
    return task


def _costs(item: Field) -> Costs:
    return Costs(
        item["macs"].count(), item["params"].count(), item["size_bytes"].count(), item["gated"].members(Field.count)
    )


def _verification(item: Field) -> Verification:
    return Verification(
        item["runtime"].text(), item["tolerance"].number(), item["seed"].count(), item["error"].members(_numbers)
    )


def _reduction(item: Field) -> Reduction:
    return Reduction(
        calibration=item["calibration"].text(),
        calibrated_on=item["calibrated_on"].count(),
        judged_on=item["judged_on"].count(),
        data=item["data"].text(),
        float32=item["float32"].members(_figures),
        reduced=item["reduced"].members(_figures),
        lost=_numbers(item["lost"]),
        max_drop=item["max_drop"].number(),
        layers=item["layers"].count(),
        kept=item["kept"].all(Field.text),
        layer_errors=_numbers(item["layer_errors"]),
        runtime=item["runtime"].text(),
        error=item["error"].members(_numbers),
    )


def _reduction_to_plain(found: Reduction) -> dict[str, Any]:
    """A metric that is no number, as of a class that no picture shows, is null."""
    return {**asdict(found), "float32": finite(found.float32), "reduced": finite(found.reduced)}


def _figures(item: Field) -> dict[str, float]:
    return {name: math.nan if value is None else value for name, value in item.members(_figure).items()}


def _figure(item: Field) -> float | None:
    return item.optional(Field.number)


def _numbers(item: Field) -> dict[str, float]:
    return item.members(Field.number)


def _engine_to_plain(engine: Engine) -> dict[str, Any]:
    return {**asdict(engine), "batches": dict(zip(BATCHES, engine.batches, strict=True)) if engine.batches else None}


def _engine(item: Field) -> Engine:
    return Engine(
        item["runtime"].text(),
        item["version"].text(),
        item["targets"].all(Field.text),
        item["batches"].optional(_batches),
        item["inputs"].all(_port),
        item["outputs"].all(_port),
        item["layers"].members(Field.count),
        item["error"].members(_numbers),
        _numbers(item["lost"]),
    )


def _batches(item: Field) -> tuple[int, int, int]:
    smallest, usual, largest = (item[name].count() for name in BATCHES)
    if not 1 <= smallest <= usual <= largest:
        item.refuse(f"batch sizes {smallest}, {usual}, {largest}")
    return smallest, usual, largest


def _port(item: Field) -> TensorSpec:
    shape = item["shape"].all(_size)
    if shape[:1] != (BATCH,):
        item["shape"].refuse(f'expected "{BATCH}" first, an entry for each picture')
    return TensorSpec(item["name"].text(), shape, item["dtype"].text())


def _size(item: Field) -> int | str:
    return item.value if isinstance(item.value, str) else item.count()


def _reference(item: Field, outputs: Collection[str]) -> Reference:
    prints = item["outputs"].members(_fingerprint)
    if set(prints) != set(outputs):
        item["outputs"].refuse(f"expected {', '.join(outputs)}; got {', '.join(prints)}")
    if not 1 <= item["batch"].count() <= MAX_BATCH:
        item["batch"].refuse(f"expected 1 to {MAX_BATCH} pictures, got {item['batch'].value}")
    return Reference(item["seed"].count(), item["batch"].count(), item["tolerance"].number(), prints)


def _fingerprint(item: Field) -> Fingerprint:
    shape, first = item["shape"].all(Field.count), item["first"].all(Field.number)
    if len(first) > math.prod(shape):
        item["first"].refuse("more first values than values")
    mean, std, max_abs, projection = (item[key].number() for key in ("mean", "std", "max_abs", "projection"))
    return Fingerprint(shape, mean, std, max_abs, projection, first)


def _file_name(name: str) -> str:
    if not FILE_NAME.fullmatch(name) or name == MANIFEST:
        raise InputError(f"lists a file {name[:80]!r}; expected plain names inside the bundle's folder. Refused")
    return name


def _file_entry(item: Field) -> FileEntry:
    if not re.fullmatch(r"[0-9a-f]{64}", item["sha256"].text()):
        item["sha256"].refuse("no SHA-256 in hexadecimal")
    return FileEntry(item["size_bytes"].count(), item["sha256"].text())


def _refuse_constant(name: str) -> float:
    raise ValueError(f"the number {name}")
