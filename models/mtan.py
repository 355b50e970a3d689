"""Multi-task attention networks (Liu, Johns and Davison, CVPR 2019).

One backbone, and at the end of each of its stages a mask for each task:

    … layers ──▶ u ──▶ layers ──▶ p ──▶ next stage …
                 ╰──╮             │
    task:  before ──┴▶ attention ─×──▶ refine ──▶ before (of the next stage)

u lies one residual block before the stage's end p (as the authors' residual networks have it, and where there is no
such place, u is p). The mask is what the task attends to (eq. 2 of the paper), â = mask ⊙ p (eq. 1). What refines â for
the next stage is shared by all tasks, one 3×3 convolution as in the paper's figure (the authors' residual networks have
a bottleneck block there); behind the last stage â goes to the task's head.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, fx, nn

from gatedeploy.errors import InputError
from gatedeploy.gating.cuts import Place, cuts, layers_until, place_of
from gatedeploy.gating.task_network import container
from gatedeploy.gating.trace import Template
from gatedeploy.gating.woven import WovenNetwork, copied, require, traced
from gatedeploy.models.heads import check_counts, conv_norm_relu
from gatedeploy.models.side_by_side import check_map, meeting_places
from gatedeploy.specs import InputSpec, Task


class Attention(nn.Module):
    """A task's mask at the end of a stage, and p under it.

    From u and, behind the first stage, the refined â of the stage before: 1×1 convolution, norm, ReLU, 1×1 convolution,
    norm, sigmoid. With `inner` m channels between, C channels and k = 1 or 2 inputs: k·C·m + 2·m + m·C + 2·C
    parameters.

    Args:
        channels: of p, of u and of what came before.
        inputs: 1 in the first stage, else 2.
        inner: channels between the convolutions.
    """

    def __init__(self, channels: int, inputs: int, inner: int) -> None:
        super().__init__()
        self.mask = nn.Sequential(
            *conv_norm_relu(inputs * channels, inner, 1),
            nn.Conv2d(inner, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.Sigmoid(),
        )

    def forward(self, p: Tensor, *seen: Tensor) -> Tensor:
        """`p` and each of `seen`: (batch, channels, height, width); the result has the same shape."""
        mask: Tensor = self.mask(torch.cat(seen, 1) if len(seen) > 1 else seen[0])
        return mask * p


class Refine(nn.Module):
    """What carries â to the next stage, shared by all tasks: 3×3 convolution, norm, ReLU, pooling (f of eq. 2).

    9·C·C′ + 2·C′ parameters.

    Args:
        this: the end of this stage, of C channels.
        following: that of the next one, of C′ channels.

    Raises:
        InputError: the next one is not a whole number of times as small.
    """

    def __init__(self, this: Place, following: Place) -> None:
        super().__init__()
        times = [round(before / after) for before, after in zip(this.extent, following.extent, strict=True)]
        if [math.ceil(before / by) for before, by in zip(this.extent, times, strict=True)] != [*following.extent]:
            raise InputError(
                f"mtan: the stage that ends with {following.name!r} has maps of {following.extent}, which pooling does "
                f"not make of {this.extent} before it; name other sites"
            )
        self.layers = conv_norm_relu(this.channels, following.channels, 3)
        self.pool = nn.MaxPool2d((times[0], times[1]), ceil_mode=True) if max(times) > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """`x`: (batch, C, height, width); the result is as large as the end of the next stage."""
        return self.pool(self.layers(x))  # type: ignore[no-any-return]


class MTAN(WovenNetwork):
    """One backbone with attention for each task; made by `mtan`.

    Args:
        tasks: the questions.
        input: the picture.
        heads: by task.
        template: the backbone, traced.
        stages: u and p of each stage.
        reduction: how many times fewer channels lie between the convolutions of an attention.
    """

    def __init__(
        self,
        tasks: tuple[Task, ...],
        input: InputSpec,
        heads: Mapping[str, nn.Module],
        template: Template,
        stages: Sequence[tuple[Place, Place]],
        reduction: int,
    ) -> None:
        super().__init__(tasks, input, heads)
        require(template.training, [place for stage in stages for place in stage])
        self.backbone = template.root
        self.attention, self.refine = nn.Module(), nn.Module()
        for number, (_, end) in enumerate(stages):
            inner = max(end.channels // reduction, 1)
            attentions = {task.name: Attention(end.channels, 2 if number else 1, inner) for task in tasks}
            self.attention.add_module(end.name, container(attentions))
            if number + 1 < len(stages):
                self.refine.add_module(end.name, Refine(end, stages[number + 1][1]))
        names = [task.name for task in tasks]
        self.weave(template, lambda graph: _woven(graph, names, [(u.name, p.name) for u, p in stages]))


def mtan(
    backbone: nn.Module,
    tasks: Sequence[Task],
    heads: Mapping[str, nn.Module],
    example_input: Tensor,
    sites: str | Sequence[str] = "stages",
    reduction: int = 4,
) -> MTAN:
    """One backbone, of whose stages each task attends to what it needs.

    Args:
        backbone: the trunk; it is copied.
        tasks: the questions.
        heads: by task.
        example_input: (batch, channels, height, width), used for shapes only.
        sites: `stages`, `end`, or names of nodes; the last must be what the backbone returns.
        reduction: see `MTAN`; the authors' is 4.

    Raises:
        InputError: the backbone returns several features, or a site is no feature map.
    """
    check_counts("mtan", reduction=reduction)
    tasks, given, template = traced(backbone, tasks, heads, example_input)
    ends = meeting_places(template, sites)
    for end in ends:
        check_map(end, "MTAN")
    leaves = [node.meta["name"] for node in template.evaluation.output_node().all_input_nodes]
    if leaves != [ends[-1].name]:
        raise InputError(
            f"mtan attends to one feature after the other, and the backbone returns {', '.join(leaves)}, of which "
            f"{ends[-1].name} is its last site; take a backbone that returns its last feature alone, or cross_stitch, "
            "which takes any"
        )
    return MTAN(
        tasks,
        InputSpec(*example_input.shape[1:]),
        given,
        template,
        [(_before(template, end), end) for end in ends],
        reduction,
    )


def _before(template: Template, end: Place) -> Place:
    """Where the residual block that makes the end of a stage begins, or the end itself."""
    graph = template.evaluation
    found, layers = {node.meta["name"]: node for node in cuts(graph)}, layers_until(graph, template.root)
    if end.name not in found:
        return end
    upto = layers[found[end.name]]
    fitting = [node for node in found.values() if place_of(node).shape == end.shape and layers[node] < upto - 1]
    return place_of(fitting[-1]) if fitting else end


def _woven(template: fx.Graph, tasks: Sequence[str], stages: Sequence[tuple[str, str]]) -> fx.Graph:
    """The graph that calls `backbone`, `attention.<p>.<task>`, `refine.<p>` and `heads.<task>`."""
    woven, values = fx.Graph(), dict[fx.Node, fx.Node]()
    named: dict[str, fx.Node] = {}
    u_of = {p: u for u, p in stages}
    attended: dict[str, fx.Node] = {}
    last = ""
    for node in template.nodes:
        if node.op == "output":
            woven.output({task: woven.call_module(f"heads.{task}", (attended[task],)) for task in tasks})
        elif node.op == "placeholder":
            values[node] = woven.placeholder("image")
        else:
            values[node] = named[node.meta["name"]] = copied(woven, node, "backbone", values)
            p = node.meta["name"]
            if p in u_of:
                for task in tasks:
                    seen = [named[u_of[p]]]
                    if task in attended:
                        seen.append(woven.call_module(f"refine.{last}", (attended[task],)))
                    attended[task] = woven.call_module(f"attention.{p}.{task}", (values[node], *seen))
                last = p
    return woven
