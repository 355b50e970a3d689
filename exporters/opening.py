"""`gd.open`: make a runner of whatever file holds a network."""

from __future__ import annotations

import shlex
from pathlib import Path

from gatedeploy.artifact import is_checkpoint, read_checkpoint, read_collapsed
from gatedeploy.errors import CheckError, InputError, closest, located
from gatedeploy.exporters.engines import CODE, open_engine
from gatedeploy.exporters.manifest import Manifest
from gatedeploy.exporters.precision.table import PRECISIONS
from gatedeploy.exporters.reading import Bundle, read_bundle
from gatedeploy.exporters.trust import check_trusted
from gatedeploy.files import as_path
from gatedeploy.graph.modules import network
from gatedeploy.runners.base import Runner, picture_of
from gatedeploy.runners.in_onnxruntime import OnnxRuntimeRunner
from gatedeploy.runners.in_openvino import OpenVinoRunner
from gatedeploy.runners.in_torch import TorchRunner

BUNDLE_RUNTIMES = ("onnxruntime", "onnxruntime-cuda", "openvino", *CODE)
RUNTIMES = ("torch", *BUNDLE_RUNTIMES)
PROVIDERS = {"onnxruntime": "CPUExecutionProvider", "onnxruntime-cuda": "CUDAExecutionProvider"}
FORMAT_OF = {"tensorrt": "trt", "tensorrt-rtx": "trt"}
"""How the format of a runtime's engines is called, where that is not the runtime's name."""


def open_runner(
    path: Path | str, runtime: str = "onnxruntime", threads: int | None = None, *, trust: bool = False
) -> Runner:
    """Open a network so that it answers: `open_runner(path).infer({"image": array})`.

    Args:
        path: the folder of a bundle, or an ONNX file for ONNX Runtime and OpenVINO; a collapsed network or a checkpoint
            for `torch`.
        runtime: what shall run it, of `RUNTIMES`.
        threads: how many threads compute one request; None leaves it to the runtime.
        trust: open engines that somebody else built: they are machine code, and opening one runs it.

    Returns:
        A runner, which is a context manager.

    Raises:
        InputError: no such runtime, the file is not for it or not whole, or it is machine code of somebody else's.
        MissingExtraError: the runtime is not installed.
        CheckError: the bundle is damaged.
    """
    if runtime not in RUNTIMES:
        raise InputError(
            f"there is no runtime {runtime!r}; known are {', '.join(RUNTIMES)}{closest(runtime, RUNTIMES)}"
        )
    path = as_path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; expected a bundle, an ONNX file or a collapsed network")
    exported = path.is_dir() or path.suffix == ".onnx"
    if runtime == "torch":
        if exported:
            raise InputError(
                f"{path}: PyTorch runs no ONNX; open the collapsed.safetensors it was made of, or take the runtime "
                "onnxruntime"
            )
        return _torch(path, threads)
    if not exported:
        raise InputError(
            f"{path}: {runtime} runs bundles and ONNX files; take the runtime torch, or export this first: "
            f"gatedeploy export {shlex.quote(str(path))} --onnx"
        )
    if path.is_dir():
        return _of_bundle(read_bundle(path), runtime, threads, trust)
    return _of_onnx(path, runtime, threads)


def _of_bundle(bundle: Bundle, runtime: str, threads: int | None, trust: bool) -> Runner:
    name, engine = bundle.runs(runtime)
    if engine is not None:
        if runtime in CODE:
            check_trusted(bundle.path / name, bundle.manifest.files[name].sha256, trust)
        return _checked(bundle, name, open_engine(bundle.path / name, engine, threads))
    if runtime in CODE:
        asked = FORMAT_OF.get(runtime, runtime)
        raise InputError(
            f"{bundle.path}: holds no engine for {runtime}; it holds {', '.join(bundle.manifest.formats)}: export it "
            f"with --format {asked}"
        )
    precision = bundle.manifest.precision
    if runtime == "onnxruntime" and (unfit := PRECISIONS[precision].unfit):
        raise InputError(f"{bundle.path}: is {precision}, {unfit}; take openvino, a GPU, or export it in fp32")
    return _checked(bundle, name, _of_onnx(bundle.model, runtime, threads))


def _checked(bundle: Bundle, file: str, runner: Runner) -> Runner:
    """The runner, unless it takes or returns something else than the bundle says."""
    try:
        with located(str(bundle.path / file)):
            check_ports(bundle.manifest, runner)
    except CheckError:
        runner.close()
        raise
    return runner


def check_ports(manifest: Manifest, runner: Runner) -> None:
    """Raise `CheckError` unless a network takes and returns what the manifest of its bundle says."""
    image = manifest.input.name
    ports = {spec.name: spec for spec in (*runner.inputs, *runner.outputs)}
    said = {spec.name: spec for spec in manifest.outputs}
    names = [spec.name for spec in runner.inputs], [spec.name for spec in runner.outputs]
    if names != ([image], list(said)):
        raise CheckError(
            f"takes {', '.join(names[0])} and returns {', '.join(names[1])}; its manifest says {image} and "
            f"{', '.join(said)}"
        )
    shapes = {image: picture_of(manifest.input).shape, **{name: spec.shape for name, spec in said.items()}}
    for name, shape in shapes.items():
        if ports[name].shape != shape:
            raise CheckError(f"{name!r} is {ports[name]}; its manifest says the shape is {shape}")


def _of_onnx(file: Path, runtime: str, threads: int | None) -> Runner:
    if runtime == "openvino":
        return OpenVinoRunner(file, threads=threads)
    if runtime in PROVIDERS:
        return OnnxRuntimeRunner(file, threads=threads, providers=[PROVIDERS[runtime]], name=runtime)
    raise InputError(f"{file}: {runtime} runs the engines of bundles, and no ONNX file")


def _torch(path: Path, threads: int | None) -> Runner:
    if is_checkpoint(path):
        checkpoint = read_checkpoint(path)
        return TorchRunner(network(checkpoint.program), checkpoint.info.input, threads=threads)
    program, info = read_collapsed(path)
    return TorchRunner(network(program), info.input, threads=threads)
