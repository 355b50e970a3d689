"""Where a measurement was made."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

import torch

from gatedeploy.doctor import installed

LIBRARIES = ("gatedeploy", "torch", "onnxruntime", "onnxruntime-gpu", "openvino", "onnx", "numpy")


@dataclass(frozen=True)
class Environment:
    """The machine and the software.

    Args:
        cpu: the processor's name and vector instructions.
        cores: how many of its cores this process may use.
        threads: how many threads compute one request.
        clock: how fast the cores run, and who decides it, as far as the system tells.
        system: operating system and architecture.
        versions: of Python and of the libraries that take part.
        load_before: tasks that ran or waited to run, mean of the minute before; None where the system does not tell.
        load_after: the same when the measurement was done; the measurement's own threads are part of it.
    """

    cpu: str
    cores: int
    threads: int
    clock: str
    system: str
    versions: dict[str, str]
    load_before: float | None
    load_after: float | None

    @property
    def told(self) -> str:
        """All of it in one sentence."""
        versions = ", ".join(f"{library} {version}" for library, version in self.versions.items())
        return (
            f"Machine: {self.cpu}, {self.cores} cores, threads: {self.threads}, {self.system}; load {self.load_before} "
            f"before and {self.load_after} after; {versions}."
        )


def environment(threads: int, load_before: float | None) -> Environment:
    """Describe this machine after a measurement.

    Args:
        threads: how many threads computed one request.
        load_before: what `load` said before it.
    """
    versions = {library: version for library in LIBRARIES if (version := installed(library))}
    versions = {"python": platform.python_version(), **versions}
    system = f"{platform.system()} {platform.machine()}"
    return Environment(processor(), cores(), threads, clock(), system, versions, load_before, load())


def load() -> float | None:
    """Tasks that ran or waited to run, the mean of the last minute; None where the system does not tell."""
    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):
        return None


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def clock(cpus: Path = Path("/sys/devices/system/cpu"), info: Path = Path("/proc/cpuinfo")) -> str:
    """How fast the cores run now, and the governor that decides it; empty where the system does not tell."""
    said = [line.partition(":")[2] for line in _lines(info) if line.startswith("cpu MHz")]
    speeds = sorted(float(each) for each in said if each.strip().replace(".", "", 1).isdigit())
    governors = {" ".join(_lines(file)) for file in cpus.glob("cpu[0-9]*/cpufreq/scaling_governor")}
    told = (
        [f"{speeds[0]:.0f} MHz" if speeds[0] == speeds[-1] else f"{speeds[0]:.0f} to {speeds[-1]:.0f} MHz"]
        if speeds
        else []
    )
    return ", ".join([*told, *(f"governor {name}" for name in sorted(governors))])


def processor() -> str:
    """What the processor calls itself, and the vector instructions that are used of it."""
    lines = _lines(Path("/proc/cpuinfo"))
    named = (line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Hardware")))
    name = next(named, "") or platform.processor() or "unknown"
    return f"{name} ({torch.backends.cpu.get_cpu_capability()})"


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
