"""What a training step of a gated network costs, over one of uniform multi-task learning.

    python -m gatedeploy.benchmarks.step_time [--compile] [--quick] [--json]

For T = 3 and 5 tasks, forward and backward apart, in turns in one process (on a GPU where PyTorch sees one, else on one
thread), with the bytes that are kept for the backward pass:

* uniform MTL: one encoder, a head for each task; everything is over this;
* gates move: T+1 branches and gates, all of which learn, as in the first part of a training;
* gates stand still: the same without gradients of gates, and so computed whole;
* live, p: what is left of that where a share p of each task's channels is its own (`gatedeploy.training.live`);
* branches in a loop, branches batched: T+1 encoders alone, without gates and heads, one after the other as in all of
  the above, or as one encoder under `torch.vmap`, which makes grouped convolutions of T+1 convolutions.

With `--compile` uniform MTL, gates that move and what is live at p = 0.2 are measured once more as `train.compile` has
them, through `torch.compile`. That takes minutes before the first step.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from gatedeploy.benchmarks.environment import environment, load
from gatedeploy.benchmarks.random_gates import Trunk, as_if_trained, random_gates
from gatedeploy.benchmarks.words import markdown
from gatedeploy.errors import run_program
from gatedeploy.gating.multi_head import MultiHead
from gatedeploy.gating.network import GatedNetwork
from gatedeploy.models.registry import build_backbone
from gatedeploy.specs import SHARED
from gatedeploy.training.compiling import compiled
from gatedeploy.training.live import train_live

TRUNKS = {
    "resnet20, width 0.5": (Trunk("resnet20", {"width": 0.5}, "dense", (64, 64)), 32),
    "resnet18": (Trunk("resnet18", {}, "dense", (96, 96)), 8),
}
"""By name the network and how many pictures a step takes."""

QUICK = {"resnet20, width 0.125": (Trunk("resnet20", {"width": 0.125}, "dense", (16, 16)), 4)}
TASKS = (3, 5)
SHARES = (0.5, 0.2, 0.1)
BASELINE = "uniform MTL"
ROUNDS = 12
COMPILED_SHARE = 0.2

Forward = Callable[[Tensor], Any]


@dataclass(frozen=True)
class Row:
    """What one way to train costs a step.

    Args:
        trunk: a key of `TRUNKS`.
        tasks: T.
        name: of the way.
        forward_ms: the median.
        backward_ms: likewise.
        forward: the median over rounds of its ratio to uniform MTL's, in the same round.
        backward: likewise.
        kept_bytes: what forward keeps for backward, weights not counted.
    """

    trunk: str
    tasks: int
    name: str
    forward_ms: float
    backward_ms: float
    forward: float
    backward: float
    kept_bytes: int


def ways(
    trunk: Trunk, tasks: int, batch: int, device: torch.device, compiles: bool = False
) -> Iterator[tuple[str, Forward]]:
    """The ways to train, each in training mode on `device`."""
    gated = random_gates(trunk, tasks, 0.5)
    plain = MultiHead(copy.deepcopy(gated.branches.get_submodule(SHARED)), dict(gated.heads.named_children()))
    yield BASELINE, copy.deepcopy(plain).to(device).train()
    moving = copy.deepcopy(gated).to(device).train()
    yield "gates move", moving
    image = torch.randn(batch, 3, *trunk.size, device=device)
    yield "gates stand still", _still(gated, 0.5, device)
    for share in SHARES:
        live = _still(gated, share, device)
        train_live(live, image)
        yield f"live, p = {share:g}", live
    if compiles:
        yield f"{BASELINE}, compiled", compiled(copy.deepcopy(plain).to(device).train(), device)
        yield "gates move, compiled", compiled(copy.deepcopy(moving), device)
        live = _still(gated, COMPILED_SHARE, device)
        train_live(live, image, partial(compiled, device=device))
        yield f"live, p = {COMPILED_SHARE:g}, compiled", live
    branches = [build_backbone(trunk.backbone, **trunk.options).to(device).train() for _ in range(tasks + 1)]
    yield "branches in a loop", lambda image: [branch(image) for branch in branches]
    yield "branches batched", batched(branches)


def _still(gated: GatedNetwork, share: float, device: torch.device) -> GatedNetwork:
    """A copy of which a share of each task's channels is its own, with gates that do not learn."""
    still = as_if_trained(copy.deepcopy(gated), share).to(device).train()
    for parameter in still.gate_parameters():
        parameter.requires_grad_(False)
    return still


def batched(branches: Sequence[nn.Module]) -> Forward:
    """Equal networks as one under `torch.vmap`, their weights stacked."""
    parameters, buffers = torch.func.stack_module_state(list(branches))
    skeleton = copy.deepcopy(branches[0]).to("meta")

    def one(own: dict[str, Tensor], kept: dict[str, Tensor], image: Tensor) -> Any:
        return torch.func.functional_call(skeleton, (own, kept), (image,))

    run = torch.vmap(one, in_dims=(0, 0, None), randomness="different")
    return lambda image: run(parameters, buffers, image)


def step_ms(forward: Forward, image: Tensor) -> tuple[float, float]:
    """Milliseconds of a forward pass and of the backward pass behind it; gradients are added to those before."""
    start = _now(image.device)
    loss = torch.stack([leaf.square().mean() for leaf in pytree.tree_leaves(forward(image))]).sum()
    middle = _now(image.device)
    torch.autograd.backward(loss)
    return 1e3 * (middle - start), 1e3 * (_now(image.device) - middle)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def kept_bytes(forward: Forward, image: Tensor) -> int:
    """What forward keeps for backward: each piece of memory once, without parameters."""
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        predictions = forward(image)  # alive, so that no memory is given out twice
    del predictions
    return sum(kept.values())


def rows(
    name: str,
    trunk: Trunk,
    batch: int,
    tasks: int,
    device: torch.device,
    rounds: int = ROUNDS,
    compiles: bool = False,
) -> list[Row]:
    """Every way to train, measured in turns, in an order that is drawn anew each round."""
    image = torch.randn(batch, 3, *trunk.size, generator=torch.Generator().manual_seed(0)).to(device)
    made = dict(ways(trunk, tasks, batch, device, compiles))
    kept = {way: kept_bytes(forward, image) for way, forward in made.items()}
    order, shuffle = list(made), random.Random(0).shuffle
    taken: dict[str, list[tuple[float, float]]] = {way: [] for way in made}
    for number in range(rounds + 1):
        shuffle(order)
        for way in order:
            found = step_ms(made[way], image)
            if number:  # the first round warms up
                taken[way].append(found)
    times = {way: np.array(each) for way, each in taken.items()}
    found_rows = []
    for way, each in times.items():
        forward_ms, backward_ms = np.median(each, axis=0)
        forward, backward = np.median(each / times[BASELINE], axis=0)
        ratios = float(forward), float(backward)
        found_rows.append(Row(name, tasks, way, float(forward_ms), float(backward_ms), *ratios, kept[way]))
    return found_rows


def page(found: list[Row]) -> str:
    """Markdown tables, one for each network and number of tasks."""
    parts = []
    for trunk, tasks in dict.fromkeys((row.trunk, row.tasks) for row in found):
        rows = [["", "forward, ms", "backward, ms", "forward ÷ MTL", "backward ÷ MTL", "kept for backward, MiB"]]
        for row in found:
            if (row.trunk, row.tasks) == (trunk, tasks):
                times = f"{row.forward_ms:.1f}", f"{row.backward_ms:.1f}", f"{row.forward:.2f}", f"{row.backward:.2f}"
                rows.append([row.name, *times, f"{row.kept_bytes / 2**20:.0f}"])
        parts.append(f"### {trunk}, T = {tasks}\n\n{markdown(rows)}")
    return "\n".join(parts)


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def main() -> None:
    """Read the command line, measure, and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--compile", action="store_true", help="measure torch.compile, too")
    parser.add_argument("--quick", action="store_true", help="a tiny network, to see that it works")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    asked = parser.parse_args()
    device, before = torch.device("cuda" if torch.cuda.is_available() else "cpu"), load()
    trunks: Mapping[str, tuple[Trunk, int]] = QUICK if asked.quick else TRUNKS
    found: list[Row] = []
    with _one_thread():
        for name, (trunk, batch) in trunks.items():
            for tasks in TASKS:
                more = rows(name, trunk, batch, tasks, device, compiles=asked.compile)
                found += more
                torch.compiler.reset()  # which else keeps the compiled networks in memory
                gc.collect()
                if not asked.json:
                    print(page(more), flush=True)
    where = asdict(environment(1, before))
    if asked.json:
        told = {"rows": [asdict(row) for row in found], "environment": where, "device": str(device)}
        print(json.dumps(told, indent=2))
    else:
        print(f"Device: {device}; {where['cpu']}; load {where['load_before']} before; {where['versions']}")


if __name__ == "__main__":
    run_program(main)
