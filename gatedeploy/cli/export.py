"""`gatedeploy export`: a collapsed network as a bundle."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

from gatedeploy.artifact import ModelInfo, read_collapsed
from gatedeploy.cli.export_report import export_to_plain, tell
from gatedeploy.cli.screen import Json, note, print_json
from gatedeploy.compiler import Collapsed
from gatedeploy.errors import InputError
from gatedeploy.exporters.bundle import check_place, write_bundle
from gatedeploy.exporters.cpp_project import check_cpp_place, write_cpp_project
from gatedeploy.exporters.engine_options import EngineOptions
from gatedeploy.exporters.engines import BATCHED
from gatedeploy.exporters.precision.int8 import METHODS
from gatedeploy.exporters.precision.reduction import MAX_DROP, PrecisionOptions
from gatedeploy.exporters.precision.samples import Samples
from gatedeploy.exporters.precision.table import EIGHT_BITS, REDUCED
from gatedeploy.exporters.progress import Progress
from gatedeploy.exporters.request import FORMATS, Request, check_formats
from gatedeploy.exporters.triton import write_triton
from gatedeploy.judging import recipe_of, samples_of

USUAL = 8
"""The batch for which an engine is fastest when none is named."""

WITH_REDUCED = ("data", "max_drop", "mixed", "layers")
WITH_EIGHT_BITS = ("calibration",)
WITH_BATCHES = ("min_shapes", "opt_shapes", "max_shapes")
WITH_TENSORRT = ("sm", "optimization_level", "workspace", "trt_library")
"""Options that do nothing unless something else is asked for."""


def export(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="A collapsed network that `gatedeploy prune` wrote.")],
    onnx: Annotated[bool, typer.Option("--onnx", help="Write ONNX; the same as --format onnx.")] = False,
    formats: Annotated[
        list[str] | None, typer.Option("--format", help=f"One of {', '.join(FORMATS)}; may be repeated.")
    ] = None,
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
    opt_shapes: Annotated[
        str | None, typer.Option(help="The batch for which it is fastest.", show_default="8, or the nearest it takes")
    ] = None,
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

    What is exported is run and compared with PyTorch at several batch sizes before the folder appears. TensorRT's
    engines run on GPUs alone: without one they are built and not run, and the bundle says so.
    """
    wanted = list(dict.fromkeys([*(["onnx"] if onnx else []), *(["trt"] if trt else []), *(formats or [])]))
    if not wanted:
        raise InputError("no format was asked for; say --onnx, --trt, or --format with its name")
    check_formats(wanted, precision)
    _check_of_use(context, wanted, precision)
    engine = EngineOptions(
        trt_library,
        _shapes(min_shapes, opt_shapes, max_shapes),
        _numbers("--sm", sm, ",") if sm else (),
        optimization_level,
        None if workspace is None else workspace << 20,
    )
    reduction = PrecisionOptions(calibration, max_drop, mixed, layers)
    out = out or file.parent / "bundle"
    check_place(out)
    if cpp:
        check_cpp_place(cpp)  # all of it told before the work
    note(f"Exporting {file}")
    program, info = read_collapsed(file)
    samples = _samples(file, info, data) if precision in REDUCED else None
    with _working() as progress:
        request = Request(wanted, precision, engine, reduction, samples, progress)
        bundle = write_bundle(Collapsed(program), info, out, request, file)
    if triton:
        note(f"Wrote {write_triton(bundle, triton)}, a model of Triton's; docs/serving.md says how to serve it")
    if cpp:
        note(f"Wrote {write_cpp_project(cpp)}, a CMake project; its README.md says how to build it")
    if json:
        print_json(export_to_plain(bundle))
    else:
        tell(bundle, file)


def _check_of_use(context: typer.Context, formats: Sequence[str], precision: str) -> None:
    """Raise `InputError` for an option that was given and would do nothing."""
    needs = [
        (WITH_REDUCED, precision in REDUCED, f"--precision {', '.join(REDUCED)}"),
        (WITH_EIGHT_BITS, precision in EIGHT_BITS, f"--precision {', '.join(EIGHT_BITS)}"),
        (WITH_BATCHES, any(name in BATCHED for name in formats), f"--format {', '.join(BATCHED)}"),
        (WITH_TENSORRT, "trt" in formats, "--trt"),
    ]
    for names, there, what in needs:
        for name in names:
            given = context.get_parameter_source(name)
            if not there and given is not None and given.name == "COMMANDLINE":
                option = f"--{name.replace('_', '-')}"
                raise InputError(f"{option} does nothing without {what}; ask for that, or leave it out")


def _samples(file: Path, info: ModelInfo, data: str | None) -> Samples:
    """The pictures to judge by; what they are is told."""
    recipe, source = recipe_of(info.recipe, data, str(file))
    samples = samples_of(recipe, source, info.tasks, info.input)
    count = sum(map(len, samples.calibration))
    note(f"Judged by {samples.pictures} pictures of {samples.source}; {count} others tell how large values become")
    return samples


def _shapes(smallest: str, usual: str | None, largest: str) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """What an engine takes; the usual batch is the one that suits most, within the others, where none is named."""
    low, high = _numbers("--min-shapes", smallest, "x"), _numbers("--max-shapes", largest, "x")
    if usual is not None:
        return low, _numbers("--opt-shapes", usual, "x"), high
    return low, (min(max(low[0], USUAL), high[0]),), high


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

        def told(phase: str, done: int, steps: int) -> None:
            if phase not in known:
                known[phase] = bars.add_task(phase, total=steps)
            bars.update(known[phase], completed=done, total=steps, visible=done < steps)

        yield told
