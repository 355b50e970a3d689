"""What of the libraries that gatedeploy can use is installed here, and what is missing for what."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from gatedeploy import __version__
from gatedeploy.errors import first_line

COMPILED, COMPILER = "gatedeploy export --format aoti", "g++"
"""What takes a compiler, and which."""

USES: dict[str, tuple[tuple[str, ...], str]] = {
    "gatedeploy train": (("lightning_fabric", "torchmetrics", "tensorboard"), "train"),
    "gatedeploy sweep": (("optuna", "lightning_fabric", "torchmetrics", "tensorboard"), "sweep,train"),
    "gatedeploy sweep --slurm": (("submitit", "optuna"), "sweep"),
    "gatedeploy export --onnx": (("onnx", "onnxscript", "onnxruntime"), "cpu"),
    "gatedeploy export --precision, judged": (("onnxruntime", "onnx_graphsurgeon", "torchmetrics"), "cpu,train"),
    "gatedeploy export --trt, with TensorRT": (("onnxruntime", "tensorrt"), "cpu,tensorrt"),
    "gatedeploy export --trt, with TensorRT for RTX": (("onnxruntime", "tensorrt_rtx"), "cpu,tensorrt-rtx"),
    "gatedeploy export --format openvino": (("onnxruntime", "openvino"), "cpu,openvino"),
    COMPILED: (("onnxruntime",), "cpu"),
    "gatedeploy export --format executorch": (("onnxruntime", "executorch"), "cpu,executorch"),
    "gatedeploy tune --runtime openvino": (("openvino",), "openvino"),
}
"""What can be done here, the libraries that it takes, and the extras that bring these."""

OWNERS = ("onnxruntime", "onnxruntime-gpu")
"""Distributions that overwrite each other: both bring the module `onnxruntime`."""

TIMEOUT_S = 10


@dataclass(frozen=True)
class Library:
    """A library, as it is imported.

    Args:
        name: what it is imported as.
        version: of what is installed; None: nothing is.
        problem: why it does not load though it is installed; None where it does.
        details: what else there is to say of it.
    """

    name: str
    version: str | None
    problem: str | None = None
    details: str = ""

    @property
    def loads(self) -> bool:
        """Whether it can be used."""
        return self.version is not None and self.problem is None


@dataclass(frozen=True)
class Gpu:
    """A GPU by its name and its compute capability, e.g. "8.6"."""

    name: str
    compute_capability: str


@dataclass(frozen=True)
class Diagnosis:
    """What was found.

    Args:
        python: its version.
        gatedeploy: its version.
        system: operating system and architecture.
        libraries: what was looked for.
        gpus: of NVIDIA.
        uses: for each command, what has to be installed for it; "" where nothing is missing.
        warnings: what is wrong.
    """

    python: str
    gatedeploy: str
    system: str
    libraries: tuple[Library, ...]
    gpus: tuple[Gpu, ...]
    uses: dict[str, str]
    warnings: tuple[str, ...]


def installed(distribution: str) -> str | None:
    """The version of a distribution, by the name that pip knows; None where it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def diagnose() -> Diagnosis:
    """Load every library that a command could need, and look for GPUs."""
    names = dict.fromkeys(["torch", *(name for names, _ in USES.values() for name in names)])
    found = {name: _library(name) for name in names}
    uses = {
        use: "" if all(found[name].loads for name in needed) else f"pip install 'gatedeploy[{extra}]'"
        for use, (needed, extra) in USES.items()
    }
    gpus = _gpus()
    if uses.get(COMPILED) == "" and shutil.which(COMPILER) is None:
        uses[COMPILED] = f"install {COMPILER}"
    broken = [f"{each.name} {each.version} does not load: {each.problem}" for each in found.values() if each.problem]
    return Diagnosis(
        platform.python_version(),
        __version__,
        f"{platform.system()} {platform.machine()}",
        tuple(found.values()),
        gpus,
        uses,
        (*broken, *_clashes(), *_unused(gpus)),
    )


_LEVEL = "SUBMITIT_LOG_LEVEL"


@contextmanager
def logging_left_alone() -> Iterator[None]:
    """Importing submitit sets logging up, which closes all handlers of this process, and absl's their streams, too."""
    level = os.environ.get(_LEVEL)
    os.environ[_LEVEL] = "NOCONFIG"
    try:
        yield
    finally:
        del os.environ[_LEVEL]
        if level is not None:
            os.environ[_LEVEL] = level


def _library(name: str) -> Library:
    try:
        with logging_left_alone():
            module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name:
            return Library(name, None)
        return Library(name, _version(name), first_line(error))
    except Exception as error:  # whatever a library raises while it is loaded
        return Library(name, _version(name), first_line(error))
    details = ""
    if name == "torch":
        details = f"CUDA {torch.version.cuda}" if torch.version.cuda else "for CPUs"
    if name == "onnxruntime":
        details = ", ".join(module.get_available_providers())
    return Library(name, _version(name), None, details)


def _version(name: str) -> str:
    """Of the module `name`."""
    distributions = importlib.metadata.packages_distributions().get(name, [name])
    return next(filter(None, map(installed, distributions)), "of an unknown version")


def _gpus() -> tuple[Gpu, ...]:
    """Asked of the driver's own program, for PyTorch may be a build for CPUs."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    words = [program, "--query-gpu=name,compute_cap", "--format=csv,noheader"]
    try:
        said = subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT_S, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    rows = (line.rpartition(",") for line in said.splitlines() if "," in line)
    return tuple(Gpu(name.strip(), capability.strip()) for name, _, capability in rows)


def _clashes() -> list[str]:
    there = [f"{distribution} {version}" for distribution in OWNERS if (version := installed(distribution))]
    if len(there) < len(OWNERS):
        return []
    remedy = f"pip uninstall {' '.join(OWNERS)}, then install one of them"
    return [f"{' and '.join(there)} are both installed and overwrite each other: {remedy}"]


def _unused(gpus: tuple[Gpu, ...]) -> list[str]:
    if gpus and not torch.cuda.is_available():
        return [f"there is a GPU, {gpus[0].name}, and the installed PyTorch {torch.__version__} cannot use it"]
    return []
