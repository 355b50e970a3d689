"""`gatedeploy export` and `gatedeploy verify`: bundles out, bundles checked."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

from gatedeploy.artifact import read_collapsed
from gatedeploy.cli.screen import Json, note, print_json, say, table
from gatedeploy.errors import InputError
from gatedeploy.exporters.bundle import export as write
from gatedeploy.exporters.checking import verify_bundle
from gatedeploy.exporters.cpp_project import check_cpp_place, write_cpp_project
from gatedeploy.exporters.int8 import METHODS
from gatedeploy.exporters.manifest import Engine, Reduction, largest
from gatedeploy.exporters.opening import BUNDLE_RUNTIMES
from gatedeploy.exporters.precision import MAX_DROP, REDUCED, PrecisionOptions
from gatedeploy.exporters.progress import Progress
from gatedeploy.exporters.reading import Bundle
from gatedeploy.exporters.samples import Samples
from gatedeploy.exporters.to_tensorrt import EngineOptions
from gatedeploy.exporters.triton import write_triton
from gatedeploy.judging import recipe_of, samples_of
from gatedeploy.parity import FLOAT32

WORST = 10
"""How many of the layers that err most are shown; `--json` has all."""


def export(
    file: Annotated[Path, typer.Argument(help="A collapsed network that `gatedeploy prune` wrote.")],
    onnx: Annotated[bool, typer.Option("--onnx", help="Write ONNX; the same as --format onnx.")] = False,
    formats: Annotated[list[str] | None, typer.Option("--format", help="A format to write; may be repeated.")] = None,
    trt: Annotated[bool, typer.Option("--trt", help="Build a TensorRT engine, too; the same as --format trt.")] = False,
    precision: Annotated[
        str, typer.Option(help="fp32, tf32 (TensorRT), or judged by the tasks' metrics: fp16, bf16, int8, fp8.")
    ] = "fp32",
    data: Annotated[
        str | None,
        typer.Option(
            help="The recipe by whose pictures reduced precision is calibrated and judged.",
            show_default="the one the network was trained by",
        ),
    ] = None,
    calibration: Annotated[
        str, typer.Option(help="How the ranges of 8 bits are chosen: min-max or entropy.")
    ] = METHODS[0],
    max_drop: Annotated[
        float, typer.Option(help="What a task may lose of its headline metric, in percent; else nothing is written.")
    ] = MAX_DROP,
    mixed: Annotated[
        bool, typer.Option("--mixed", help="Keep in fp32 the layers that err most, until no task loses more.")
    ] = False,
    layers: Annotated[bool, typer.Option("--layers", help="Measure the error that each layer makes alone.")] = False,
    min_shapes: Annotated[
        str, typer.Option(help="The smallest batch that an engine takes: 1, or sizes, 1x3x128x128.")
    ] = "1",
    opt_shapes: Annotated[str, typer.Option(help="The batch for which it is fastest.")] = "8",
    max_shapes: Annotated[str, typer.Option(help="The largest batch that it takes.")] = "32",
    sm: Annotated[
        str, typer.Option(help="Compute capabilities of the GPUs to build an engine for: 86,89. Empty: the library's.")
    ] = "",
    optimization_level: Annotated[
        int | None, typer.Option(help="0 builds an engine fastest, 5 searches longest.")
    ] = None,
    workspace: Annotated[int | None, typer.Option(help="MiB that an engine's kernels may use besides.")] = None,
    trt_library: Annotated[
        str | None, typer.Option(help="tensorrt or tensorrt-rtx.", show_default="what is installed")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The folder to write.", show_default="bundle/ beside the file")
    ] = None,
    triton: Annotated[Path | None, typer.Option(help="A model repository of Triton's to add the network to.")] = None,
    cpp: Annotated[Path | None, typer.Option(help="A folder for a CMake project that runs the bundle.")] = None,
    json: Json = False,
) -> None:
    """Export a collapsed network as a bundle: the network, its description, class names and a README.

    The exported network is run and compared with PyTorch at two batch sizes before the folder appears. Engines are
    built of it and not run: building needs no GPU with TensorRT for RTX, running does.
    """
    wanted = list(dict.fromkeys([*(["onnx"] if onnx else []), *(["trt"] if trt else []), *(formats or [])]))
    if not wanted:
        raise InputError("no format was asked for; say --onnx, --trt, or --format with its name")
    shapes = {"--min-shapes": min_shapes, "--opt-shapes": opt_shapes, "--max-shapes": max_shapes}
    smallest, usual, biggest = (_numbers(option, text, "x") for option, text in shapes.items())
    engine = EngineOptions(
        trt_library,
        (smallest, usual, biggest),
        _numbers("--sm", sm, ",") if sm else (),
        optimization_level,
        None if workspace is None else workspace << 20,
    )
    reduction = PrecisionOptions(calibration, max_drop, mixed, layers)
    if cpp:
        check_cpp_place(cpp)  # told before the work
    note(f"Exporting {file}")
    samples = _samples(file, data) if precision in REDUCED else None
    with _working() as progress:
        bundle = write(
            file,
            out or file.parent / "bundle",
            formats=wanted,
            precision=precision,
            engine=engine,
            reduction=reduction,
            samples=samples,
            progress=progress,
        )
    if triton:
        note(f"Wrote {write_triton(bundle, triton)}, a model of Triton's; docs/serving.md says how to serve it")
    if cpp:
        note(f"Wrote {write_cpp_project(cpp)}, a CMake project; its README.md says how to build it")
    if json:
        print_json(_document(bundle))
    else:
        _tell(bundle, file)


def _samples(file: Path, data: str | None) -> Samples:
    """The pictures to judge by; what they are is told."""
    _, info = read_collapsed(file)
    recipe, source = recipe_of(info.recipe, data, str(file))
    samples = samples_of(recipe, source, info.tasks, info.input)
    count = sum(map(len, samples.calibration))
    note(f"Judged by {samples.pictures} pictures of {samples.source}; {count} others tell how large values become")
    return samples


def _document(bundle: Bundle) -> dict[str, Any]:
    manifest = bundle.manifest
    listed = {
        key: {name: asdict(entry) for name, entry in entries.items()}
        for key, entries in (("files", manifest.files), ("engines", manifest.engines))
    }
    proof = {
        "verification": asdict(manifest.verification),
        "reduction": asdict(manifest.reduction) if manifest.reduction else None,
    }
    return {"bundle": str(bundle.path), "precision": manifest.precision, **listed, **proof}


def _tell(bundle: Bundle, file: Path) -> None:
    """Say what was written, for people."""
    if bundle.manifest.reduction:
        _tell_reduction(bundle.manifest.precision, bundle.manifest.reduction)
    for name, built in bundle.manifest.engines.items():
        say(f"{name}: {_engine(built)}")
    rows = [[name, f"{entry.size_bytes:,} bytes"] for name, entry in bundle.manifest.files.items()]
    table([str(bundle.path), "size"], rows)
    checked = bundle.manifest.verification
    where = f"in {checked.runtime} against PyTorch at batch {' and '.join(checked.error)}"
    if checked.tolerance is None:
        say(f"Before it was reduced it was checked {where}: the same to {FLOAT32:.0e} of the outputs' scale.")
    else:
        say(f"Checked {where}: the same to {largest(checked.error):.1e} of the outputs' scale.")
    say(f"Next: gatedeploy verify {shlex.quote(str(bundle.path))}, or gatedeploy bench {shlex.quote(str(file))}")


def _engine(built: Engine) -> str:
    """What was built, in a sentence or two."""
    what = f"built with {built.runtime} {built.version} for {', '.join(built.targets) or 'the targets of its choice'}"
    batches = f"batch {' / '.join(map(str, built.batches))}" if built.batches else "any batch"
    error = largest(built.error)
    proof = "not run" if error is None else f"run, and the same to {error:.1e} of the outputs' scale"
    types = ", ".join(f"{layers} in {dtype}" for dtype, layers in built.layers.items())
    return f"{what}, {batches}; {proof}.{f' Layers: {types}.' if types else ''}"


def _tell_reduction(precision: str, found: Reduction) -> None:
    """What each task reaches now, which layers stayed in float32, and which err most."""
    table(["task", "metric", "fp32", precision], found.rows)
    lost = ", ".join(f"{task} {drop:+.2f} %" for task, drop in found.lost.items())
    say(f"Lost of what each task is judged by: {lost} (at most {found.max_drop:g} % allowed).")
    if found.kept:
        say(f"In fp32 stayed: {', '.join(found.kept)}.")
    if found.layer_errors:
        worst = [[name, f"{error:.1e}"] for name, error in list(found.layer_errors.items())[:WORST]]
        table(["layer", f"error, that layer alone in {precision}"], worst)


def _numbers(option: str, text: str, between: str) -> tuple[int, ...]:
    """Whole numbers of an option, e.g. 8x3x128x128."""
    parts = text.split(between)
    if not all(part.isascii() and part.isdecimal() for part in parts):
        raise InputError(f"{option} {text}: expected whole numbers with '{between}' between them")
    return tuple(map(int, parts))


@contextmanager
def _working() -> Iterator[Progress]:
    """A bar for each phase of long work, on a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Bars(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        known: dict[str, TaskID] = {}

        def tell(phase: str, done: int, steps: int) -> None:
            if phase not in known:
                known[phase] = bars.add_task(phase, total=steps)
            bars.update(known[phase], completed=done, total=steps, visible=done < steps)

        yield tell


def verify(
    bundle: Annotated[Path, typer.Argument(help="A bundle that `gatedeploy export` wrote.")],
    runtime: Annotated[str, typer.Option(help=f"What shall compute: {', '.join(BUNDLE_RUNTIMES)}.")] = "onnxruntime",
    trust: Annotated[
        bool, typer.Option("--trust", help="Run an engine that somebody else built: it is a program.")
    ] = False,
    json: Json = False,
) -> None:
    """Check a bundle on this machine: every file's hash, and that the network computes here what it should.

    The manifest remembers what the network answered to a made-up picture. Exit code 1 when something differs.
    """
    check = verify_bundle(bundle, runtime=runtime, trust=trust)
    if json:
        print_json({"bundle": str(bundle), **asdict(check)})
        return
    table(["output", "difference"], [[name, f"{error:.1e}"] for name, error in check.parity.error.items()])
    say(
        f"{bundle}: {check.files} files, {check.size_bytes:,} bytes, all as their hashes say; {check.runtime} computes "
        f"what was computed when it was written (at most {check.parity.tolerance:.0e} apart)."
    )
