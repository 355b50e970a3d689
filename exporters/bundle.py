"""`gd.export`: write a collapsed network as a folder that holds all that deploying it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from gatedeploy.artifact import ModelInfo, check_fits, names_only, read_collapsed
from gatedeploy.compiler import Collapsed
from gatedeploy.errors import CheckError, InputError, MissingExtraError, check_type
from gatedeploy.exporters.describing import Origin, Proof, describe
from gatedeploy.exporters.engine_options import EngineOptions
from gatedeploy.exporters.engines import BATCHED, Source, build, open_engine, runs_here
from gatedeploy.exporters.manifest import (
    MANIFEST,
    Engine,
    FileEntry,
    Reduction,
    Verification,
    labels_file,
)
from gatedeploy.exporters.manifest_json import manifest_to_json
from gatedeploy.exporters.precision.reduction import PrecisionOptions, reduce_precision
from gatedeploy.exporters.precision.samples import Samples
from gatedeploy.exporters.precision.table import PRECISIONS
from gatedeploy.exporters.precision.verdict import Judge
from gatedeploy.exporters.progress import Progress, untold
from gatedeploy.exporters.reading import MODEL, Bundle, open_model, read_bundle, read_manifest
from gatedeploy.exporters.readme import readme
from gatedeploy.exporters.request import Request
from gatedeploy.exporters.to_onnx import EXTERNAL_DATA_SUFFIX, OPSET, export_onnx
from gatedeploy.exporters.trust import remember
from gatedeploy.exporters.verification import (
    SEED,
    answered,
    differences,
    expected_cases,
    for_batches,
)
from gatedeploy.files import as_path, replacing_folder, sha256
from gatedeploy.graph.modules import network
from gatedeploy.parity import FLOAT32
from gatedeploy.program import Program
from gatedeploy.runners.base import Runner
from gatedeploy.runners.in_onnxruntime import OnnxRuntimeRunner


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
        precision: of weights and arithmetic: "fp32"; "tf32" in TensorRT; "fp16", "bf16", "int8", "fp8", which are
            judged by what the tasks lose.
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
    check_type("info", info, ModelInfo, type(None))
    check_type("engine", engine, EngineOptions, type(None))
    check_type("reduction", reduction, PrecisionOptions, type(None))
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
    return write_bundle(collapsed, info or known, as_path(out), request, source)


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
    check_place(out)
    _require_runtime()
    options = request.engine_options  # a library that is missing is told before the work
    program = _float32(collapsed.program)
    info = _fitting(info, program)
    if any(name in BATCHED for name in request.compiled):
        options.check_picture(info.input)
    gated = asdict(collapsed.report.gated) if collapsed.report else info.report.get("gated", {})
    with replacing_folder(out, MANIFEST) as folder:
        plain, model = network(program), folder / MODEL
        export_onnx(plain, info, model, opset=PRECISIONS[request.precision].opset or OPSET)
        for task in info.tasks:
            if labels := labels_file(task):
                _write_text(folder / labels, "".join(f"{name}\n" for name in task.classes))
        proof = _proved(model, program, info, request)
        manifest = describe(program, info, request.precision, proof, Origin(gated, source), _size(model))
        network_source = Source(plain, model, info.input, proof.outputs)
        built = dict(_compiled(kind, network_source, folder, options, proof, request) for kind in request.compiled)
        manifest = replace(manifest, formats=("onnx", *request.compiled), engines=built)
        _write_text(folder / "README.md", readme(manifest))
        manifest = replace(manifest, files=_entries(folder))
        _write_text(folder / MANIFEST, manifest_to_json(manifest))
        written = read_bundle(folder)
    for name in built:
        remember(written.manifest.files[name].sha256)
    return Bundle(out, written.manifest)


def _proved(model: Path, program: Program, info: ModelInfo, request: Request) -> Proof:
    """Compare the ONNX network with PyTorch; then, if that is asked for, reduce its precision and have that judged."""
    cases = expected_cases(program, info.input)
    with open_model(model, "fp32") as runner:
        errors = differences(cases, runner, info.input, FLOAT32, "the ONNX network")
        outputs, verification = runner.outputs, Verification(_called(runner), FLOAT32, SEED, errors)
    reduction = None
    if request.reduced:
        assert request.samples is not None  # `Request` sees to it
        precision, progress = request.precision, request.progress
        reduction = reduce_precision(model, info.input, precision, request.reduction, request.samples, progress)
        with open_model(model, precision) as runner:
            errors = differences(cases, runner, info.input, None, f"the network in {precision}")
            reduction = replace(reduction, runtime=_called(runner, precision), error=errors)
            cases = answered(cases, runner, info.input)
    return Proof(outputs, verification, reduction, cases)


def _called(runner: OnnxRuntimeRunner, precision: str = "fp32") -> str:
    """What ran a network, for people."""
    import onnxruntime

    emulated = f", {PRECISIONS[precision].half} emulated" if PRECISIONS[precision].emulated else ""
    return f"onnxruntime {onnxruntime.__version__} {runner.providers[0]}{emulated}"


def _compiled(
    kind: str, source: Source, folder: Path, options: EngineOptions, proof: Proof, request: Request
) -> tuple[str, Engine]:
    """Build a compiled form, and compare it with the ONNX network where it runs here; judge it if that is reduced."""
    name, engine = build(kind, source, folder, options, request.progress)
    if not runs_here(engine):
        return name, engine
    what = f"the network in {engine.runtime}"
    with open_engine(folder / name, engine) as runner:
        fitting = for_batches(proof.cases, engine.batches)
        tolerance = None if proof.reduction else PRECISIONS[request.precision].tolerance
        engine = replace(engine, error=differences(fitting, runner, source.input, tolerance, what))
        if proof.reduction:
            engine = replace(engine, lost=_lost(runner, engine, source, proof.reduction, request))
    return name, engine


def _lost(runner: Runner, engine: Engine, source: Source, reduction: Reduction, request: Request) -> dict[str, float]:
    """What the tasks lose in an engine; `CheckError` where that is too much."""
    assert request.samples is not None  # `Request` sees to it
    judge = Judge(source.input, request.samples, request.progress)
    what = f"{request.precision} in {engine.runtime}"
    verdict = judge.verdict(runner, reduction.float32, what, engine.batches)
    if not verdict.holds(reduction.max_drop):
        refused = judge.told(verdict, reduction.float32, what, reduction.max_drop)
        raise CheckError(f"{refused}. In ONNX Runtime it holds: leave {engine.runtime} out, or allow more (--max-drop)")
    return verdict.lost


def _size(model: Path) -> int:
    files = (model, model.with_name(f"{model.name}{EXTERNAL_DATA_SUFFIX}"))
    return sum(file.stat().st_size for file in files if file.exists())


def check_place(out: Path) -> None:
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


def _entries(folder: Path) -> dict[str, FileEntry]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): FileEntry(file.stat().st_size, sha256(file)) for file in files}


def _write_text(file: Path, text: str) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(text, encoding="utf-8", newline="\n")
