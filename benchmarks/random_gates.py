"""Gated networks whose gates are drawn at random, for benchmarks in which weights do not matter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from gatedeploy.gating.network import GatedNetwork, gate
from gatedeploy.models.registry import build_backbone, build_head
from gatedeploy.specs import Task, TaskKind

CLASSES = tuple(map(str, range(40)))
WEIGHT_NOISE = 0.1


@dataclass(frozen=True)
class Trunk:
    """A backbone with its heads and its picture.

    Args:
        backbone: its name, in the registry.
        options: its options.
        head: the name of every task's head.
        size: height and width.
    """

    backbone: str
    options: dict[str, Any]
    head: str
    size: tuple[int, int]


def random_gates(
    trunk: Trunk, tasks: int, specific: float, *, tie: str | None = None, group: int = 1, seed: int = 0
) -> GatedNetwork:
    """A gated network with random weights, each gate specific with probability `specific`; it follows from the seed.

    As after training, no two branches have equal weights.
    """
    torch.manual_seed(seed)
    backbone, asked, heads = parts(trunk, tasks)
    example = torch.zeros(1, 3, *trunk.size)
    network = gate(backbone, asked, example_input=example, heads=heads, tie=tie, group=group)
    return as_if_trained(network, specific)


def parts(trunk: Trunk, tasks: int) -> tuple[nn.Module, list[Task], dict[str, nn.Module]]:
    """The backbone, so many tasks, and their heads by name, with fresh random weights."""
    backbone = build_backbone(trunk.backbone, **trunk.options)
    kind: TaskKind = "classification" if trunk.head == "linear" else "segmentation"
    asked = [Task(f"task{number}", kind, CLASSES) for number in range(tasks)]
    heads = {task.name: build_head(trunk.head, backbone.out_channels, task, trunk.size) for task in asked}
    return backbone, asked, heads


@torch.no_grad()
def as_if_trained(network: GatedNetwork, specific: float) -> GatedNetwork:
    """Draw each gate, specific with probability `specific`, and change all weights a little, in evaluation mode.

    Branches start as copies of one backbone; were their weights equal, exporters would do equal work once.
    """
    for site in network.sites:
        for task in network.tasks:
            chosen = network.gate(site, task.name)
            chosen.choose(torch.rand(chosen.gate_logits.shape) < specific)
    for weight in network.parameters():
        weight.mul_(1 + WEIGHT_NOISE * torch.randn_like(weight))
    return network.eval()
