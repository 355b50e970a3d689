"""The compiled forms of a network, by format: how each is built, and what opens it."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from gatedeploy.errors import InputError, MissingExtraError
from gatedeploy.exporters.engine_options import EngineOptions
from gatedeploy.exporters.manifest import Engine
from gatedeploy.exporters.progress import Progress
from gatedeploy.exporters.to_aoti import build_aoti
from gatedeploy.exporters.to_executorch import build_executorch
from gatedeploy.exporters.to_openvino import build_openvino
from gatedeploy.exporters.to_tensorrt import build_engine
from gatedeploy.runners.base import Runner, TensorSpec
from gatedeploy.runners.in_aoti import AotiRunner
from gatedeploy.runners.in_executorch import ExecutorchRunner
from gatedeploy.runners.in_openvino import OpenVinoRunner
from gatedeploy.runners.in_tensorrt import TensorRtRunner
from gatedeploy.specs import InputSpec

FOLDER = "engine"
FORMATS = ("trt", "openvino", "aoti", "executorch")
FLOAT32_ONLY = ("aoti", "executorch")
"""Formats that are made of the network itself; the others take the precision of the ONNX file."""

BATCHED = ("trt", "aoti", "executorch")
"""Formats that are built for a range of batch sizes."""

CODE = ("tensorrt", "tensorrt-rtx", "aoti", "executorch")
"""Runtimes whose files are programs: they do what whoever made them wants."""


@dataclass(frozen=True)
class Source:
    """What a compiled form is made of.

    Args:
        network: plain, in float32, on the CPU.
        model: the ONNX file, in the precision that was asked for.
        input: the picture.
        outputs: what the network returns, in order.
    """

    network: nn.Module
    model: Path
    input: InputSpec
    outputs: Sequence[TensorSpec]


def build(kind: str, source: Source, folder: Path, options: EngineOptions, progress: Progress) -> tuple[str, Engine]:
    """Build one of `FORMATS` in the folder of a bundle; returns the file's name in it and what was built.

    Raises:
        GatedeployError: as the format's own function.
    """
    (folder / FOLDER).mkdir(exist_ok=True)
    network, input, outputs = source.network, source.input, source.outputs
    match kind:
        case "trt":
            name = f"{FOLDER}/{options.runtime}.plan"
            return name, build_engine(source.model, folder / name, input, options, progress)
        case "openvino":
            name = f"{FOLDER}/openvino.xml"
            return name, build_openvino(source.model, folder / name, input, outputs)
        case "aoti":
            name = f"{FOLDER}/aoti.pt2"
            return name, build_aoti(network, folder / name, input, outputs, options.batches)
        case "executorch":
            name = f"{FOLDER}/executorch.pte"
            return name, build_executorch(network, folder / name, input, outputs, options.batches)
    raise AssertionError(kind)


def runs_here(engine: Engine) -> bool:
    """Whether this machine has what the engine runs on; TensorRT's needs a GPU."""
    return not engine.runtime.startswith("tensorrt") or torch.cuda.is_available()


def open_engine(path: Path, engine: Engine, threads: int | None = None) -> Runner:
    """Open a compiled network; whether it may be is decided before (`gatedeploy.exporters.trust`).

    Raises:
        InputError: it was made by another version of the library or for another machine, or is damaged.
        MissingExtraError: its library is not installed.
    """
    batches = engine.batches or (1, 1, 1)
    ends = batches[0], batches[-1]
    if engine.runtime == "openvino":
        return OpenVinoRunner(path, threads=threads)
    if engine.runtime == "aoti":
        _check_fits_here(path, engine)
        return AotiRunner(path, engine.inputs, engine.outputs, ends, threads=threads)
    if engine.runtime == "executorch":
        return _executorch(path, engine, ends)
    if engine.runtime in ("tensorrt", "tensorrt-rtx"):
        return TensorRtRunner(path, engine.runtime, ends)
    raise InputError(f"{path}: there is no runtime {engine.runtime!r}; install the gatedeploy that wrote the bundle")


def _executorch(path: Path, engine: Engine, ends: tuple[int, int]) -> Runner:
    """An ExecuTorch program, which later releases promise to run; where one does not, both are named."""
    try:
        return ExecutorchRunner(path, engine.inputs, engine.outputs, ends)
    except MissingExtraError:
        raise
    except InputError as error:
        raise InputError(f"{error}; it was made by executorch {engine.version}") from error


def _check_fits_here(path: Path, engine: Engine) -> None:
    """Raise `InputError` for machine code of another PyTorch or another processor, which would crash the process."""
    if engine.version != torch.__version__:
        made = f"was made by PyTorch {engine.version}, and here is {torch.__version__}"
        raise InputError(f"{path}: {made}; install that one, or export again")
    machine, *instructions = engine.targets
    missing = [name for name in instructions if not _has(name)]
    if machine != platform.machine() or missing:
        here = platform.machine() if machine != platform.machine() else f"without {', '.join(missing)}"
        needs = " with ".join(filter(None, (machine, ", ".join(instructions))))
        raise InputError(f"{path}: was compiled for {needs}; this machine is {here}: export on a machine like it")


def _has(instructions: str) -> bool:
    """Whether this processor has a set of instructions, as far as PyTorch can tell."""
    asked = {
        "avx2": "_is_avx2_supported",
        "avx512": "_is_avx512_supported",
        "avx512_vnni": "_is_vnni_supported",
        "amx_tile": "_is_amx_tile_supported",
    }
    probe = getattr(torch.cpu, asked.get(instructions, ""), None)
    return probe is None or bool(probe())
