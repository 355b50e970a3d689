"""`gd.export`: write a collapsed network as a folder that holds all that deploying it takes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from gatedeploy.artifact import ModelInfo, check_fits, names_only, read_collapsed
from gatedeploy.compiler import Collapsed
from gatedeploy.errors import CheckError, InputError, MissingExtraError, closest
from gatedeploy.exporters.manifest import (
    MANIFEST,
    Costs,
    FileEntry,
    Manifest,
    Reference,
    Verification,
    labels_file,
)
from gatedeploy.exporters.manifest_json import manifest_to_json
from gatedeploy.exporters.reading import MODEL, Bundle, read_bundle, read_manifest
from gatedeploy.exporters.readme import readme
from gatedeploy.exporters.reference import fingerprint, reference_picture
from gatedeploy.exporters.tensorrt_library import Progress, library, untold
from gatedeploy.exporters.to_onnx import EXTERNAL_DATA_SUFFIX, export_onnx
from gatedeploy.exporters.to_tensorrt import EngineOptions, build_engine
from gatedeploy.files import replacing_folder, sha256
from gatedeploy.graph.cost import cost
from gatedeploy.graph.modules import network
from gatedeploy.parity import FLOAT32, compare
from gatedeploy.program import Program, evaluate, flat_predictions
from gatedeploy.runners.base import Array
from gatedeploy.runners.in_onnxruntime import OnnxRuntimeRunner
from gatedeploy.specs import InputSpec

FORMATS = ("onnx", "trt")
PLANNED_FORMATS = ("openvino", "aoti", "executorch")
PRECISIONS = ("fp32",)
PLANNED_PRECISIONS = ("fp16", "bf16", "int8")
BATCHES = (1, 3)
"""Batch sizes that an exported network is verified at; neither is the one it was traced with."""

SEED = 0


def export(
    collapsed: Collapsed | Path | str,
    out: Path | str,
    *,
    formats: Sequence[str] = ("onnx",),
    precision: str = "fp32",
    info: ModelInfo | None = None,
    engine: EngineOptions | None = None,
    progress: Progress = untold,
) -> Bundle:
    """Export a collapsed network as a bundle: a folder with the network, its description and a README.

    Args:
        collapsed: the network, or the file that holds it (`collapsed.safetensors`).
        out: the folder; one that is there is replaced if it is a bundle and holds nothing of yours.
        formats: what the bundle shall hold: "onnx", and "trt" for a TensorRT engine. ONNX is always there: it is what
            is verified, and what engines are built of.
        precision: of weights and arithmetic.
        info: tasks, class names and preprocessing; those that the network or the file brings when None.
        engine: how the engine shall be built.
        progress: is told how far the engine's build is.

    Raises:
        InputError: the network cannot be exported, the folder holds something else, or the request cannot be met.
        MissingExtraError: onnxruntime, which verifies the result, is not installed.
        CheckError: the exported network computes something else. Nothing is written then.
        GatedeployError: the disk refuses. Nothing is changed then.
    """
    source = None
    if isinstance(collapsed, Collapsed):
        known = collapsed.info or names_only(collapsed.program)
    elif isinstance(collapsed, (str, Path)):
        source = Path(collapsed)
        program, known = read_collapsed(source)
        collapsed = Collapsed(program)
    else:
        raise InputError(
            "expected a collapsed network, as gatedeploy.collapse and gatedeploy.load return it, or the file of one; "
            f"got a {type(collapsed).__name__}"
        )
    return write_bundle(
        collapsed,
        info or known,
        Path(out),
        formats=formats,
        precision=precision,
        source=source,
        engine=engine,
        progress=progress,
    )


def write_bundle(
    collapsed: Collapsed,
    info: ModelInfo,
    out: Path,
    *,
    formats: Sequence[str] = ("onnx",),
    precision: str = "fp32",
    source: Path | None = None,
    engine: EngineOptions | None = None,
    progress: Progress = untold,
) -> Bundle:
    """Write a bundle, verify it, and only then give it its name.

    Args:
        collapsed: the network.
        info: tasks, class names, preprocessing and metrics.
        out: the folder, see `export`.
        formats: what it shall hold.
        precision: of weights and arithmetic.
        source: the file that the network was read from, for the manifest.
        engine: how an engine shall be built.
        progress: is told how far that is.

    Raises:
        GatedeployError: as `export`.
    """
    _check_known("format", formats, FORMATS, PLANNED_FORMATS)
    _check_known("precision", [precision], PRECISIONS, PLANNED_PRECISIONS)
    _check_place(out)
    _require_runtime()
    engine = engine or EngineOptions()
    if "trt" in formats:
        engine = replace(engine, runtime=library(engine.runtime)[0])  # missing, it is told before the work
    program = _float32(collapsed.program)
    info = _fitting(info, program)
    gated = asdict(collapsed.report.gated) if collapsed.report else info.report.get("gated", {})
    with replacing_folder(out, MANIFEST) as folder:
        export_onnx(network(program), info, folder / MODEL)
        for task in info.tasks:
            if labels := labels_file(task):
                _write_text(folder / labels, "".join(f"{name}\n" for name in task.classes))
        manifest = _describe(folder, program, info, gated, source)
        if "trt" in formats:
            name = f"engine/{engine.runtime}.plan"
            built = build_engine(folder / MODEL, folder / name, info.input, engine, progress)
            manifest = replace(manifest, formats=(*manifest.formats, "trt"), engines={name: built})
        _write_text(folder / "README.md", readme(manifest))
        manifest = replace(manifest, files=_entries(folder))
        _write_text(folder / MANIFEST, manifest_to_json(manifest))
        written = read_bundle(folder)
    return Bundle(out, written.manifest)


def _describe(
    folder: Path, program: Program, info: ModelInfo, gated: Mapping[str, int], source: Path | None
) -> Manifest:
    """Run the exported network beside PyTorch and write down all that is known of it."""
    with OnnxRuntimeRunner(folder / MODEL) as runner:
        verification, reference = _verify(program, info.input, runner)
        outputs = runner.outputs
    owners = {task: flat_predictions({task: prediction}) for task, prediction in program.outputs.items()}
    counted = cost(program)
    weights = sum(
        file.stat().st_size for file in (folder / MODEL, folder / f"{MODEL}{EXTERNAL_DATA_SUFFIX}") if file.exists()
    )
    return Manifest(
        formats=FORMATS[:1],
        precision=PRECISIONS[0],
        input=info.input,
        tasks=info.tasks,
        outputs=outputs,
        task_of={name: task for task, flat in owners.items() for name in flat},
        costs=Costs(counted.macs, counted.params, weights, {key: int(value) for key, value in gated.items()}),
        metrics={task: _finite(values) for task, values in info.metrics.items()},
        flipped_gates=info.flipped_gates,
        tools=_tools(),
        source={"file": source.name, "sha256": sha256(source)} if source else {},
        verification=verification,
        reference=reference,
        engines={},
        files={},
    )


def _verify(program: Program, spec: InputSpec, runner: OnnxRuntimeRunner) -> tuple[Verification, Reference]:
    """Compare ONNX Runtime with PyTorch in float64; `CheckError` unless they agree to rounding."""
    import onnxruntime

    errors: dict[str, dict[str, float]] = {}
    expected: dict[int, dict[str, Array]] = {}
    for batch in BATCHES:
        picture = reference_picture(spec, batch, SEED)
        exact = flat_predictions(evaluate(program, torch.from_numpy(picture)))
        expected[batch] = {name: tensor.numpy() for name, tensor in exact.items()}
        for name, values in expected[batch].items():
            if not math.isfinite(values.sum()):
                raise CheckError(f"prediction {name!r} is not finite for a picture of noise; train the network again")
        parity = compare(exact, runner.infer({spec.name: picture}), FLOAT32)
        parity.check(f"the ONNX network at batch size {batch}")
        errors[str(batch)] = dict(parity.error)
    runtime = f"onnxruntime {onnxruntime.__version__} {runner.providers[0]}"
    fingerprints = {name: fingerprint(values) for name, values in expected[BATCHES[0]].items()}
    return Verification(runtime, FLOAT32, SEED, errors), Reference(SEED, BATCHES[0], fingerprints)


def _check_known(what: str, asked: Sequence[str], known: Sequence[str], planned: Sequence[str]) -> None:
    if isinstance(asked, str) or not asked:
        raise InputError(f"{what}s: expected a list such as {list(known)}, got {asked!r}")
    for name in asked:
        if name in planned:
            raise InputError(f"the {what} {name!r} is planned; this version of gatedeploy writes {', '.join(known)}")
        if name not in known:
            names = (*known, *planned)
            raise InputError(f"there is no {what} {name!r}; known are {', '.join(names)}{closest(name, names)}")


def _check_place(out: Path) -> None:
    """Raise `InputError` unless `out` is free, an empty folder, or a bundle to which nobody has added anything."""
    if out.is_symlink():
        raise InputError(f"{out}: is a link; name the folder itself")
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    remedy = "choose another folder"
    try:
        listed = {MANIFEST, *read_manifest(out).files}
    except (InputError, CheckError) as error:
        raise InputError(f"{out}: exists and is no bundle that could be replaced; {remedy} ({error})") from None
    found = {file.relative_to(out).as_posix() for file in out.rglob("*") if file.is_symlink() or not file.is_dir()}
    if found - listed:
        raise InputError(f"{out}: holds {', '.join(sorted(found - listed))} besides a bundle; move it, or {remedy}")


def _require_runtime() -> None:
    try:
        import onnxruntime  # noqa: F401
    except ImportError:
        raise MissingExtraError("verifying an exported network", "onnxruntime", "cpu") from None


def _float32(program: Program) -> Program:
    weights = {
        name: weight.cpu().float() if weight.is_floating_point() else weight.cpu()
        for name, weight in program.weights.items()
    }
    return replace(program, weights=weights)


def _fitting(info: ModelInfo, program: Program) -> ModelInfo:
    """`info` for the tasks that the network has; `InputError` where the two contradict each other."""
    check_fits(info, program)
    if info.input.name != program.input.name:
        raise InputError(f"the network takes {program.input}, its description says {info.input}")
    info = info.only(program.outputs)
    for task in info.tasks:
        for name in task.classes:
            if not name or name.splitlines() != [name]:
                raise InputError(f"task {task.name}: class name {name!r} does not fit on a line of its own")
    return info


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: float(value) if math.isfinite(value) else None for name, value in values.items()}


def _tools() -> dict[str, str]:
    import platform

    import numpy
    import onnx
    import onnxruntime
    import onnxscript

    import gatedeploy

    modules: dict[str, Any] = {"gatedeploy": gatedeploy, "torch": torch, "onnx": onnx, "onnxscript": onnxscript}
    modules |= {"onnxruntime": onnxruntime, "numpy": numpy}
    return {"python": platform.python_version(), **{name: str(tool.__version__) for name, tool in modules.items()}}


def _entries(folder: Path) -> dict[str, FileEntry]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): FileEntry(file.stat().st_size, sha256(file)) for file in files}


def _write_text(file: Path, text: str) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(text, encoding="utf-8", newline="\n")
