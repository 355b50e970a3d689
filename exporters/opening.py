"""`gd.open`: make a runner of whatever file holds a network."""

from __future__ import annotations

import shlex
from pathlib import Path

from gatedeploy.artifact import is_checkpoint, read_checkpoint, read_collapsed
from gatedeploy.errors import InputError, closest
from gatedeploy.exporters.reading import read_bundle
from gatedeploy.graph.modules import network
from gatedeploy.runners.base import Runner
from gatedeploy.runners.in_onnxruntime import OnnxRuntimeRunner
from gatedeploy.runners.in_torch import TorchRunner

RUNTIMES = ("torch", "onnxruntime")
PLANNED_RUNTIMES = ("onnxruntime-cuda", "openvino", "tensorrt", "tensorrt-rtx", "aoti", "executorch")


def open_runner(path: Path | str, runtime: str = "onnxruntime", threads: int | None = None) -> Runner:
    """Open a network so that it answers: `open_runner(path).infer({"image": array})`.

    Args:
        path: the folder of a bundle or an ONNX file for `onnxruntime`; a collapsed network or a checkpoint for `torch`.
        runtime: what shall run it.
        threads: how many threads compute one request; None leaves it to the runtime.

    Returns:
        A runner, which is a context manager.

    Raises:
        InputError: no such runtime, or one that this version does not have, or the file is not for it or not whole.
        MissingExtraError: the runtime is not installed.
        CheckError: the bundle is damaged.
    """
    _check_runtime(runtime)
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; expected a bundle, an ONNX file or a collapsed network")
    for_onnx = path.is_dir() or path.suffix == ".onnx"
    if runtime == "torch":
        if for_onnx:
            raise InputError(
                f"{path}: PyTorch runs no ONNX; open the collapsed.safetensors it was made of, or take the runtime "
                "onnxruntime"
            )
        return _torch(path, threads)
    if not for_onnx:
        raise InputError(
            f"{path}: {runtime} runs bundles and ONNX files; take the runtime torch, or export this first: "
            f"gatedeploy export {shlex.quote(str(path))} --onnx"
        )
    return OnnxRuntimeRunner(read_bundle(path).model if path.is_dir() else path, threads=threads)


def _torch(path: Path, threads: int | None) -> Runner:
    if is_checkpoint(path):
        checkpoint = read_checkpoint(path)
        return TorchRunner(network(checkpoint.program), checkpoint.info.input, threads=threads)
    program, info = read_collapsed(path)
    return TorchRunner(network(program), info.input, threads=threads)


def _check_runtime(runtime: str) -> None:
    if runtime in RUNTIMES:
        return
    if runtime in PLANNED_RUNTIMES:
        raise InputError(
            f"the runtime {runtime!r} is planned; this version of gatedeploy has {', '.join(RUNTIMES)}. Bundles hold "
            "plain ONNX, which other runtimes load by themselves"
        )
    known = (*RUNTIMES, *PLANNED_RUNTIMES)
    raise InputError(f"there is no runtime {runtime!r}; known are {', '.join(known)}{closest(runtime, known)}")
