"""A network so small that its costs are counted by hand, a clock that does as it is told, a report out of thin air."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

import gatedeploy as gd
from gatedeploy.artifact import ModelInfo
from gatedeploy.benchmarks.accuracy import Accuracy
from gatedeploy.benchmarks.costs import NetworkCost
from gatedeploy.benchmarks.energy import Energy
from gatedeploy.benchmarks.environment import Environment
from gatedeploy.benchmarks.footprint import Footprint
from gatedeploy.benchmarks.latency import Measurement, Ratio
from gatedeploy.benchmarks.layers import Layer
from gatedeploy.benchmarks.offered_load import Offered
from gatedeploy.benchmarks.predictions import Example, Shown, png
from gatedeploy.benchmarks.published import Published
from gatedeploy.benchmarks.reduced import Reduced
from gatedeploy.benchmarks.report import CandidateReport, Report
from gatedeploy.exporters.manifest import Reduction
from gatedeploy.graph.shares import SiteShare
from gatedeploy.runners.base import Array, Runner, TensorSpec
from gatedeploy.training.comparing import Comparison

EXAMPLE = torch.zeros(1, 3, 8, 8)
SPEC = gd.InputSpec(3, 8, 8)
EVIL = "<script>alert('$x$')</script>"

TASKS = (gd.Task("kind", "classification", ("a", "b")), gd.Task("depth", "depth"))
RECIPE: dict[str, object] = {
    "data": {"name": "scenes"},
    "model": {"backbone": {"name": "resnet20", "width": 0.25}, "head": {"name": "dense", "width": 8}},
    "tasks": {"kind": {"head": {"name": "linear"}}, "depth": {}},
    "train": {"epochs": 1},
}
RECIPE_INFO = ModelInfo(TASKS, gd.InputSpec(1, 16, 16), recipe=RECIPE)


class Backbone(nn.Sequential):
    """3→4 channels with a 3×3 kernel on 8×8, 4→6 with a 3×3 kernel on 4×4; norms behind both."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 4, 3, padding=1, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(6),
            nn.ReLU(),
        )


def head(classes: int = 5) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, classes))


BACKBONE_MACS = 3 * 4 * 9 * 64 + 4 * 6 * 9 * 16
# Folding a norm gives its layer a bias.
BACKBONE_PARAMS = (3 * 4 * 9 + 4) + (4 * 6 * 9 + 6)
HEAD_MACS = 6 * 5
HEAD_PARAMS = 6 * 5 + 5


def tasks(count: int = 2) -> tuple[gd.Task, ...]:
    classes = ("a", EVIL, "c|d", "e", "f")
    return tuple(gd.Task(f"task{number}", "classification", classes) for number in range(count))


def gated(count: int = 2) -> gd.GatedNetwork:
    """A gated network with random gates."""
    asked = tasks(count)
    network = gd.gate(Backbone(), asked, example_input=EXAMPLE, heads={task.name: head() for task in asked}).eval()
    generator = torch.Generator().manual_seed(0)
    for site in network.sites:
        for task in asked:
            network.gate(site, task.name).choose(torch.rand(site.channels, generator=generator) < 0.4)
    return network


def save_gated(path: Path, metrics: dict[str, dict[str, float]] | None = None) -> Path:
    network = gated()
    path.parent.mkdir(parents=True, exist_ok=True)
    gd.save(network, path, info=ModelInfo(network.tasks, network.input, metrics=metrics or {}))
    return path


class Clock:
    """Seconds that pass only when they are told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Sleeper(Runner):
    """Takes as many milliseconds as the next of its times says; the last one for ever."""

    def __init__(self, clock: Clock, times_ms: Sequence[float], log: list[str] | None = None, name: str = "") -> None:
        self.name = name
        self.threads = 1
        self.inputs = (TensorSpec("image", ("batch", 3, 8, 8), "float32"),)
        self.outputs = ()
        self.calls = 0
        self._clock = clock
        self._times = times_ms
        self._log = log

    def infer(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        assert feed["image"].dtype == np.float32
        self._clock.now += 1e-3 * self._times[min(self.calls, len(self._times) - 1)]
        self.calls += 1
        if self._log is not None:
            self._log.append(self.name)
        return {}

    def close(self) -> None:
        pass


def some_candidate(name: str, title: str, macs: int, latency: float) -> CandidateReport:
    samples = ((latency, latency * 1.01), (latency * 0.99, latency))
    eight = tuple(tuple(4 * time for time in turn) for turn in samples)
    offered = [Offered(rate, (latency, latency * rate / 100) * 60, rate / 400) for rate in (100.0, 200.0, 400.0)]
    return CandidateReport(
        name,
        name,
        title,
        2 if name == "stl" else 1,
        NetworkCost(macs, macs // 10, {"conv": macs - 7, "linear": 7}, {"matmul": 3}, {"aten::add": 2}),
        1234,
        Measurement(name, samples, samples),
        Ratio(latency, latency * 0.9, latency * 1.1),
        Ratio(latency, latency, latency),
        macs / 1000,
        {"depth": 1e-6},
        {"depth": 1e-12} if name == "collapsed" else {},
        flipped_gates=0,
        measured={"stl": "single-task networks", "collapsed": f"{EVIL}.pt"}.get(name, ""),
        batches={8: Measurement(name, eight, eight)} if name != "stl" else {},
        offered=offered,
        footprint=Footprint(12.0, 3.0, 5_000_000),
        energy=Energy(0.02, 20.0, 100) if name == "mtl" else None,
        layers=[Layer(EVIL, macs - 7, 0.75 * latency, 0.1), Layer("head", 7, 0.25 * latency, 0.0)],
    )


def some_reduction() -> Reduction:
    """From an RMSE of 0.4 to one of 0.5, and a class that was never seen."""
    before, now = ({"depth": {"rmse": rmse}, "kind": {"accuracy": math.nan}} for rmse in (0.4, 0.5))
    judged, lost, error = (8, 16), {"depth": 25.0}, {"depth": {"max": 0.1}}
    return Reduction("min-max", *judged, "scenes", before, now, lost, 1.0, 7, (EVIL,), {}, "onnxruntime 1", error)


def some_report(warnings: tuple[str, ...] = (), site: str = EVIL) -> Report:
    """A report in which whatever can be untrusted text is hostile."""
    return Report(
        created="2030-01-02 03:04 UTC",
        command="gatedeploy bench 'a <b>.pt'",
        paths=({"path": f"{EVIL}.pt", "form": "gated", "sha256": "0" * 64},),
        tasks=(gd.Task("depth", "depth"), gd.Task("kind", "classification", ("|", EVIL, "]("))),
        input=SPEC,
        baseline="mtl",
        candidates=(
            some_candidate("stl", "2 single-task networks", 2000, 2.1),
            some_candidate("mtl", "One shared encoder", 1000, 1.0),
            some_candidate("collapsed", f"Collapsed {EVIL}", 1300, 1.5),
        ),
        sharing={EVIL: [SiteShare(site, 8, {"depth": 2, "kind": 8}, {"depth": 0.25, "kind": 0.75})]},
        accuracy=(
            Accuracy("single-task networks", {"depth": {"rmse": 0.5}, "kind": {"accuracy": 0.8}}, None),
            Accuracy(f"{EVIL}.pt", {"depth": {"rmse": 0.4}, "kind": {"accuracy": 0.9}}, Comparison(16.25, 0.1625, 100)),
        ),
        reductions=(Reduced(f"{EVIL}/int8", "int8", some_reduction()),),
        published=(Published("InterroGate <1>", 2.0, 1.2, "table 5"), Published("uniform MTL", -4.0, 1.0, "table 5")),
        latency={"runtime": "onnxruntime", "threads": 1, "batch": 1, "seed": 0, "rounds": 2},
        environment=Environment("some <cpu>", 2, 1, "2600 MHz", "Linux", {"python": "3"}, 0.1, None),
        warnings=warnings,
        notes=("no experts <here>",),
        examples=(Example(png(np.zeros((2, 2, 3))), (Shown(EVIL, png(np.ones((2, 2, 3))), f"is {EVIL}"),)),),
    )


def image() -> Array:
    return np.zeros((1, 3, 8, 8), dtype=np.float32)
