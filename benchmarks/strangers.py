"""Networks of other people, as they come: gated, a step in training mode, collapsed, and equal.

    python -m gatedeploy.benchmarks.strangers timm:convnext_pico torchvision:swin_t my_networks:Trunk … [--size 96]

A network is named as `library:name` and has random weights. In timm and torchvision, where installed, that is its name
there; in any other module it is the function or class that makes it. Two tasks predict its last features; half of all
channels, drawn at random, are a task's own. Then 1.75 of three trunks are left at best: a shared row falls away only
where both tasks have their own. What the compiler could not take apart, and what could not be gated, is told.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import gatedeploy as gd
from gatedeploy.benchmarks.collapse_cost import row
from gatedeploy.benchmarks.random_gates import as_if_trained
from gatedeploy.errors import first_line, run_program
from gatedeploy.gating.network import GatedNetwork

HEADINGS = ("network", "picture", "sites", "gated, MMACs", "left", "float64 error", "taken whole", "seconds")


@dataclass(frozen=True)
class Case:
    """A network's name, and how large pictures are where it takes any."""

    name: str
    size: int


def build(case: Case) -> tuple[nn.Module, int]:
    """The network and its picture's height and width.

    Args:
        case: `library:name`.
    """
    library, _, name = case.name.partition(":")
    if library == "torchvision":
        make = importlib.import_module("torchvision.models").get_model_builder(name)
        options: dict[str, Any] = {"image_size": case.size} if name.startswith("vit") else {}
        if "weights_backbone" in inspect.signature(make).parameters:
            options["weights_backbone"] = None
        return make(weights=None, **options), case.size
    if library == "timm":
        network = importlib.import_module("timm").create_model(name, pretrained=False)
        known = network.default_cfg
        return network, known["input_size"][-1] if known.get("fixed_input_size") else case.size
    made = getattr(importlib.import_module(library), name)()
    return made, case.size


def measure(case: Case) -> str:
    """Take one network all the way; returns a row of the table."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    started = time.perf_counter()
    try:
        backbone, size = build(case)
        picture = torch.randn(2, 3, size, size)
        cells = _cells(backbone.eval(), picture)
    except Exception as error:  # other people's code runs here; what it says is the result
        cells = ["", "", "", "", "", f"{type(error).__name__}: {first_line(error)}"]
    return row(case.name, *cells, f"{time.perf_counter() - started:.0f}")


def _cells(backbone: nn.Module, picture: Tensor) -> list[str]:
    tasks = [gd.Task("one"), gd.Task("other")]
    network = as_if_trained(gd.gate(backbone, tasks, example_input=picture), specific=0.5)
    with torch.no_grad():
        for weight in network.weight_parameters():
            if not weight.any():  # as some begin; then nothing of what lies before could be told apart
                weight.normal_(std=0.02)
    _train_a_step(network, picture)
    report = gd.collapse(network.eval(), example_input=picture, target=None).report
    assert report is not None
    whole = ", ".join(f"{name.removeprefix('aten.')} {times}×" for name, times in report.barriers.items())
    left = 3 * report.collapsed.macs / report.gated.macs if report.gated.macs else 0.0
    error = max(report.parity.error.values())
    return [
        *(f"{picture.shape[-1]}²", f"{len(network.sites)}", f"{report.gated.macs / 1e6:.0f}", f"{left:.2f}"),
        *(f"{error:.0e}", whole),
    ]


def _train_a_step(network: GatedNetwork, picture: Tensor) -> None:
    """Forward and backward, in training mode; the weights stay."""
    leaves: list[Any] = pytree.tree_leaves(network.train()(picture))
    loss = torch.stack([leaf.float().square().mean() for leaf in leaves if isinstance(leaf, Tensor)]).sum()
    loss.backward()  # type: ignore[no-untyped-call]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every network in a process of its own, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("networks", nargs="+", metavar="LIBRARY:NAME")
    parser.add_argument("--size", type=int, default=96, help="height and width of pictures, where they are free")
    asked = parser.parse_args(arguments)
    print(row(*HEADINGS))
    print(row(*["---"] * len(HEADINGS)))
    for name in asked.networks:
        with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
            print(fresh.submit(measure, Case(name, asked.size)).result(), flush=True)


if __name__ == "__main__":
    run_program(main)
