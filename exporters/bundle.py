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
from gatedeploy.errors import CheckError, InputError, MissingExtraError
from gatedeploy.exporters.engines import Source, build, open_engine, runs_here
from gatedeploy.exporters.manifest import (
    MANIFEST,
    Costs,
    Engine,
    FileEntry,
    Manifest,
    Reduction,
    Verification,
    labels_file,
)
from gatedeploy.exporters.manifest_json import manifest_to_json
from gatedeploy.exporters.precision import PrecisionOptions, reduce_precision
from gatedeploy.exporters.progress import Progress, untold
from gatedeploy.exporters.reading import MODEL, Bundle, open_model, read_bundle, read_manifest
from gatedeploy.exporters.readme import readme
from gatedeploy.exporters.request import Request
from gatedeploy.exporters.samples import Samples
from gatedeploy.exporters.to_onnx import EXTERNAL_DATA_SUFFIX, OPSET, export_onnx
from gatedeploy.exporters.to_tensorrt import EngineOptions
from gatedeploy.exporters.trust import remember
from gatedeploy.exporters.verification import (
    SEED,
    TOLERANCE,
    Case,
    answered,
    differences,
    expected_cases,
    for_batches,
    reference_of,
)
from gatedeploy.files import replacing_folder, sha256
from gatedeploy.graph.cost import cost
from gatedeploy.graph.modules import network
from gatedeploy.parity import FLOAT32
from gatedeploy.program import Program, flat_predictions

OPSETS = {"bf16": 22}
"""The first version of ONNX's operators in which convolutions know the type; else `OPSET`."""


def export(
    collapsed: Collapsed | Path | str,
    out: Path | str,
    *,
    formats: Sequence[str] = ("onnx",),
    precision: str = "fp32",
    info: ModelInfo | None = None,
    engine: EngineOptions | None = None,
    reduction: PrecisionOptions | None = None,
    samples: Samples | None = None,
    progress: Progress = untold,
) -> Bundle:
    """Export a collapsed network as a bundle: a folder with the network, its description and a README.

    Args:
        collapsed: the network, or the file that holds it (`collapsed.safetensors`).
        out: the folder; one that is there is replaced if it is a bundle and holds nothing of yours.
        formats: what the bundle shall hold: "onnx", which is always there, for it is what the others are verified by;
            "trt" for a TensorRT engine; "openvino", "aoti" (AOTInductor), "executorch".
        precision: of weights and arithmetic: "fp32"; "tf32" in TensorRT; "fp16", "bf16", "int8", which are judged by
            what the tasks lose.
        info: tasks, class names and preprocessing; those that the network or the file brings when None.
        engine: how compiled forms shall be built.
        reduction: how far reduced precision may go.
        samples: what it is calibrated and judged by.
        progress: is told how far long work is.

    Raises:
        InputError: the network cannot be exported, the folder holds something else, or the request cannot be met.
        MissingExtraError: onnxruntime, which verifies the result, or what writes a format is not installed.
        CheckError: the exported network computes something else, or a task loses too much. Nothing is written then.
        GatedeployError: the disk refuses. Nothing is changed then.
    """
    request = Request(formats, precision, engine or EngineOptions(), reduction or PrecisionOptions(), samples, progress)
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
    return write_bundle(collapsed, info or known, Path(out), request, source)


def write_bundle(
    collapsed: Collapsed, info: ModelInfo, out: Path, request: Request | None = None, source: Path | None = None
) -> Bundle:
    """Write a bundle, verify it, and only then give it its name.

    Args:
        collapsed: the network.
        info: tasks, class names, preprocessing and metrics.
        out: the folder, see `export`.
        request: what it shall hold; ONNX in float32 when None.
        source: the file that the network was read from, for the manifest.

    Raises:
        GatedeployError: as `export`.
    """
    request = request or Request()
    _check_place(out)
    _require_runtime()
    options = request.engine_options  # a library that is missing is told before the work
    program = _float32(collapsed.program)
    info = _fitting(info, program)
    gated = asdict(collapsed.report.gated) if collapsed.report else info.report.get("gated", {})
    with replacing_folder(out, MANIFEST) as folder:
        plain = network(program)
        export_onnx(plain, info, folder / MODEL, opset=OPSETS.get(request.precision, OPSET))
        for task in info.tasks:
            if labels := labels_file(task):
                _write_text(folder / labels, "".join(f"{name}\n" for name in task.classes))
        reduction, cases = None, expected_cases(program, info.input)
        if request.reduced:
            reduction = _reduced(folder / MODEL, info, cases, request)
        manifest, cases = _describe(folder, program, info, gated, source, request, reduction, cases)
        built = dict(
            _compiled(
                kind, Source(plain, folder / MODEL, info.input, manifest.outputs), folder, options, cases, request
            )
            for kind in request.compiled
        )
        manifest = replace(manifest, formats=("onnx", *request.compiled), engines=built)
        _write_text(folder / "README.md", readme(manifest))
        manifest = replace(manifest, files=_entries(folder))
        _write_text(folder / MANIFEST, manifest_to_json(manifest))
        written = read_bundle(folder)
    for name in built:
        remember(written.manifest.files[name].sha256)
    return Bundle(out, written.manifest)


def _reduced(model: Path, info: ModelInfo, cases: Sequence[Case], request: Request) -> Reduction:
    """Verify the network in float32, then reduce its precision and have that judged."""
    with open_model(model, "fp32") as runner:
        differences(cases, runner, info.input, FLOAT32, "the ONNX network in float32")
    assert request.samples is not None  # `Request` sees to it
    return reduce_precision(model, info.input, request.precision, request.reduction, request.samples, request.progress)


def _describe(
    folder: Path,
    program: Program,
    info: ModelInfo,
    gated: Mapping[str, int],
    source: Path | None,
    request: Request,
    reduction: Reduction | None,
    cases: tuple[Case, ...],
) -> tuple[Manifest, tuple[Case, ...]]:
    """Run the exported network beside PyTorch and write down all that is known of it.

    Returns:
        The manifest, and what other runtimes shall compute: in reduced precision what this one does.
    """
    import onnxruntime

    tolerance = None if reduction else FLOAT32
    with open_model(folder / MODEL, request.precision) as runner:
        errors = differences(cases, runner, info.input, tolerance, "the ONNX network")
        outputs = runner.outputs
        runtime = f"onnxruntime {onnxruntime.__version__} {runner.providers[0]}"
        if reduction:
            cases = answered(cases, runner, info.input)
    if request.precision == "bf16":
        runtime += ", bfloat16 emulated"
    owners = {task: flat_predictions({task: prediction}) for task, prediction in program.outputs.items()}
    counted = cost(program)
    weights = sum(
        file.stat().st_size for file in (folder / MODEL, folder / f"{MODEL}{EXTERNAL_DATA_SUFFIX}") if file.exists()
    )
    return Manifest(
        formats=("onnx",),
        precision=request.precision,
        input=info.input,
        tasks=info.tasks,
        outputs=outputs,
        task_of={name: task for task, flat in owners.items() for name in flat},
        costs=Costs(counted.macs, counted.params, weights, {key: int(value) for key, value in gated.items()}),
        metrics={task: _finite(values) for task, values in info.metrics.items()},
        flipped_gates=info.flipped_gates,
        tools=_tools(),
        source={"file": source.name, "sha256": sha256(source)} if source else {},
        reduction=reduction,
        verification=Verification(runtime, tolerance, SEED, errors),
        reference=reference_of(cases, request.precision),
        engines={},
        files={},
    ), cases


def _compiled(
    kind: str, source: Source, folder: Path, options: EngineOptions, cases: Sequence[Case], request: Request
) -> tuple[str, Engine]:
    """Build a compiled form, and compare it with the ONNX network where it runs here."""
    name, engine = build(kind, source, folder, options, request.progress)
    if not runs_here(engine):
        return name, engine
    with open_engine(folder / name, engine) as runner:
        fitting = for_batches(cases, engine.batches)
        errors = differences(fitting, runner, source.input, TOLERANCE[request.precision], f"the network in {kind}")
    return name, replace(engine, error=errors)


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
