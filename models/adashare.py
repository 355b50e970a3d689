"""AdaShare: which residual blocks a task runs and which it skips (Sun, Panda, Feris and Saenko, NeurIPS 2020).

One backbone; each task goes through it by itself, and at each residual block a choice, learnt, runs it or takes the
block's shortcut. Collapsed, a task's skipped blocks are gone, and what tasks begin with alike is computed once.

A training has three parts, as the paper's: every task runs every block; then choices are drawn by chance, and learnt
together with the weights, those of the last blocks first ("curriculum"); then each choice stands, and the weights
follow. The paper learns choices and weights in turns, of two halves of the data, and begins the last part anew from the
weights of the first; here the weights go on. Once choices stand, nobody runs what he skips, so that the statistics of
a block's batch norms are of the tasks that run it; before, they are of all, as in the authors' code.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, fx, nn

from gatedeploy.errors import InputError
from gatedeploy.gating.cuts import Place, cuts, place_of
from gatedeploy.gating.kinds import Kinds
from gatedeploy.gating.task_network import container
from gatedeploy.gating.trace import Template
from gatedeploy.gating.whole_gates import GumbelGate
from gatedeploy.gating.woven import WovenNetwork, copied, predictions, require, traced
from gatedeploy.specs import InputSpec, Task

HOT, COLD = 5.0, 0.5
"""Temperatures at which choices are first and last drawn. The authors begin with 5 and multiply by 0.965."""


class AdaShare(WovenNetwork):
    """One backbone whose residual blocks each task runs or skips; made by `adashare`.

    Attributes:
        units: the choices, by block and task: T for each block, one number each.

    Args:
        tasks: the questions.
        input: the picture.
        heads: by task.
        template: the backbone, traced.
        blocks: each one's end, and its shortcut.
        sparsity: weight of what makes tasks skip blocks.
        sharing: weight of what makes tasks choose alike.
        warm_up: the share of a training before choices are learnt.
        settle: the share of a training after which they stand.
    """

    unit_rate = 10.0
    """Choices are learnt ten times as fast as weights: the authors' 0.01 beside 0.001, both by Adam."""

    def __init__(
        self,
        tasks: tuple[Task, ...],
        input: InputSpec,
        heads: Mapping[str, nn.Module],
        template: Template,
        blocks: Sequence[tuple[Place, Place]],
        sparsity: float,
        sharing: float,
        warm_up: float,
        settle: float,
    ) -> None:
        super().__init__(tasks, input, heads)
        require(template.training, [place for block in blocks for place in block])
        self.sparsity, self.sharing = sparsity, sharing
        self.warm_up, self.settle = warm_up, settle
        self.backbone = template.root
        self.units = nn.Module()
        for end, _ in blocks:
            self.units.add_module(end.name, container({task.name: GumbelGate() for task in tasks}))
        self._names = [task.name for task in tasks]
        self._shortcuts = {end.name: start.name for end, start in blocks}
        self._template = template
        self._settled = False
        self.weave(template, lambda graph: _woven(graph, self._names, self._shortcuts))
        self.at(0.0)

    def choices(self) -> list[list[GumbelGate]]:
        """By block, from the first, and task: above 0 the block is run."""
        return [
            [choice for choice in block.children() if isinstance(choice, GumbelGate)] for block in self.units.children()
        ]

    def at(self, share: float) -> None:
        """Let the choices be learnt, drawn and as sure as they are at this share of a training."""
        blocks = self.choices()
        done = (share - self.warm_up) / max(self.settle - self.warm_up, 1e-9)  # of the part in which they are learnt
        # Half of that part lets in one block after the other, the last one first.
        learnt = math.ceil(len(blocks) * min(2 * done, 1.0)) if 0 <= done < 1 else 0
        for number, block in enumerate(blocks):
            drawn = number >= len(blocks) - max(learnt, 1) if 0 <= done < 1 else False
            for choice in block:
                choice.drawn = drawn
                choice.gate_logits.requires_grad_(drawn)
                choice.temperature = HOT * (COLD / HOT) ** min(max(done, 0.0), 1.0)
        if (done >= 1) != self._settled:
            self._settled = not self._settled
            skipped = self._skipped() if self._settled else None
            self.weave_training(_woven(self._template.training, self._names, self._shortcuts, skipped))

    def _skipped(self) -> set[tuple[str, str]]:
        """The ends of the blocks that a task skips, with the task, as the choices stand."""
        return {
            (end, task)
            for end, block in self.units.named_children()
            for task, choice in block.named_children()
            if isinstance(choice, GumbelGate) and not choice.share()
        }

    def decided(self) -> tuple[str, dict[str, float]]:
        """The share of the blocks that each task runs."""
        runs = torch.stack([torch.cat([choice.share() for choice in block]) for block in self.choices()])
        shares = runs.double().mean(0).tolist()
        return "blocks run", {task.name: share for task, share in zip(self.tasks, shares, strict=True)}

    def penalty(self) -> Tensor:
        """Eq. 4 and 5 of the paper, of the choices that are being learnt.

        With α the probability that a task runs a block: the mean over blocks and sum over tasks of log α; and over all
        pairs of tasks the sum of |α − α′|, of which early blocks count more: (L − l)/L, l from 0.
        """
        blocks = self.choices()
        logits = torch.stack([torch.cat([choice.gate_logits for choice in block]) for block in blocks])  # (L, T)
        drawn = torch.tensor([block[0].drawn for block in blocks], dtype=logits.dtype, device=logits.device)[:, None]
        if not drawn.any():
            return super().penalty()
        depth = torch.arange(len(blocks), 0, -1, dtype=logits.dtype, device=logits.device)[:, None] / len(blocks)
        sparse = (nn.functional.logsigmoid(logits) * drawn).sum() / drawn.sum()
        chances = logits.sigmoid()
        first, second = torch.triu_indices(logits.shape[1], logits.shape[1], 1, device=logits.device)
        alike = ((chances[:, first] - chances[:, second]).abs() * depth * drawn).sum()
        return self.sparsity * sparse + self.sharing * alike


def adashare(
    backbone: nn.Module,
    tasks: Sequence[Task],
    heads: Mapping[str, nn.Module],
    example_input: Tensor,
    sparsity: float = 0.001,
    sharing: float = 0.05,
    warm_up: float = 0.2,
    settle: float = 0.6,
) -> AdaShare:
    """One backbone of whose residual blocks each task chooses.

    Args:
        backbone: the trunk; it is copied.
        tasks: the questions.
        heads: by task.
        example_input: (batch, channels, height, width), used for shapes only.
        sparsity: weight of what makes tasks skip blocks. This and the next are the authors' numbers for three tasks of
            NYU-v2, whose code compares logits where the paper, and we, compare probabilities.
        sharing: weight of what makes tasks choose alike.
        warm_up: the share of a training before choices are learnt.
        settle: the share after which they stand, so that the weights can follow.

    Raises:
        InputError: the backbone has no residual block, or a number cannot be.
    """
    for name, value in (("sparsity", sparsity), ("sharing", sharing)):
        if not 0 <= value < math.inf:
            raise InputError(f"{name} must be a number of at least 0, got {value!r}")
    if not 0 <= warm_up < settle <= 1:
        raise InputError(f"expected 0 ≤ warm_up < settle ≤ 1, got {warm_up!r} and {settle!r}")
    tasks, given, template = traced(backbone, tasks, heads, example_input)
    blocks = residual_blocks(template)
    if not blocks:
        raise InputError(
            "adashare skips residual blocks, and the backbone has none: no sum of a feature with one made of it, "
            "through which all that follows goes; take cross_stitch or nddr, or gate it"
        )
    return AdaShare(
        tasks, InputSpec(*example_input.shape[1:]), given, template, blocks, sparsity, sharing, warm_up, settle
    )


def residual_blocks(template: Template) -> list[tuple[Place, Place]]:
    """The residual blocks of a backbone: the end of each, behind an activation that follows the sum, and its shortcut.

    Of the two that are added, the shortcut is the one with fewer layers. Everything that follows must go through the
    sum, and it must be the only one since such a place before, so the exchange units of HRNet are no blocks.
    """
    graph, kinds = template.evaluation, Kinds(template.root)
    found = cuts(graph)
    depth: dict[fx.Node, int] = {}  # most layers on a way to a node
    blocks, sums = [], 0  # since the cut before
    for node in graph.nodes:
        depth[node] = max((depth[before] for before in node.all_input_nodes), default=0) + kinds.is_mixing(node)
        sums += kinds.is_sum(node)
        if node not in found:
            continue
        alone, sums = sums == 1, 0
        if not (alone and kinds.is_sum(node)):
            continue
        shortcut, residual = sorted(node.args, key=depth.__getitem__)
        if depth[shortcut] == depth[residual] or shortcut.meta["shape"] != node.meta["shape"]:
            continue
        user = next(iter(node.users)) if len(node.users) == 1 else None
        end = user if user is not None and user.op != "output" and kinds.is_activation(user) else node
        blocks.append((place_of(end), place_of(shortcut)))
    return blocks


def _woven(
    template: fx.Graph,
    tasks: Sequence[str],
    shortcuts: Mapping[str, str],
    skipped: Collection[tuple[str, str]] | None = None,
) -> fx.Graph:
    """The graph that calls `backbone` once for each task, and once for all that have come the same way, and `heads`.

    Args:
        template: of the backbone.
        tasks: their names.
        shortcuts: the shortcut of each block, by the block's end.
        skipped: blocks and tasks that skip them; all others run them. None: the choices in `units` are called.
    """
    woven = fx.Graph()
    values: dict[str, dict[fx.Node, fx.Node]] = {task: {} for task in tasks}
    by_name = {node.meta.get("name"): node for node in template.nodes}
    for node in template.nodes:
        if node.op == "output":
            woven.output(predictions(woven, node, values))
            continue
        made: dict[tuple[fx.Node, ...], fx.Node] = {}
        for own in values.values():
            read = tuple(own[before] for before in node.all_input_nodes)
            if read not in made:
                image = node.op == "placeholder"
                made[read] = woven.placeholder("image") if image else copied(woven, node, "backbone", own)
            own[node] = made[read]
        if node.op != "placeholder" and node.meta["name"] in shortcuts:
            start = by_name[shortcuts[node.meta["name"]]]
            for task, own in values.items():
                if skipped is None:
                    own[node] = woven.call_module(f"units.{node.meta['name']}.{task}", (own[node], own[start]))
                elif (node.meta["name"], task) in skipped:
                    own[node] = own[start]
    return woven
