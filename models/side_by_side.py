"""T copies of a backbone, side by side, whose features meet at some places: cross-stitch networks and their like.

            ╭──▶ a ──▶╭──────╮──▶ a ──▶ head
    picture ┤         │ unit │
            ╰──▶ b ──▶╰──────╯──▶ b ──▶ head

A unit reads what all tasks' copies made at its place, in the order of the tasks, and returns what they go on from.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, fx, nn

from gatedeploy.errors import InputError
from gatedeploy.gating.cuts import Place, named, place_of, returned, stage_ends
from gatedeploy.gating.task_network import container
from gatedeploy.gating.trace import Template
from gatedeploy.gating.woven import WovenNetwork, copied, load_branch, predictions, require, traced
from gatedeploy.specs import InputSpec, Task

MakeUnit = Callable[[Place], nn.Module]
"""The unit of a place: as many features in as out, of equal shapes."""


class SideBySide(WovenNetwork):
    """One copy of the backbone for each task, and units where they meet.

    Args:
        backbone: the trunk.
        tasks: the questions.
        heads: by task.
        example_input: (batch, channels, height, width), used for shapes only.
        sites: where the copies meet, see `meeting_places`.
        make_unit: makes the unit of a place.
        unit_rate: how many times the learning rate of the rest the units have.

    Raises:
        InputError: the backbone cannot be traced, or there is no such site.
    """

    def __init__(
        self,
        backbone: nn.Module,
        tasks: Sequence[Task],
        heads: Mapping[str, nn.Module],
        example_input: Tensor,
        sites: str | Sequence[str],
        make_unit: MakeUnit,
        unit_rate: float = 1.0,
    ) -> None:
        tasks, heads, template = traced(backbone, tasks, heads, example_input)
        super().__init__(tasks, InputSpec(*example_input.shape[1:]), heads)
        places = meeting_places(template, sites)
        require(template.training, places)
        self.unit_rate = unit_rate
        self.branches = container({task.name: copy.deepcopy(template.root) for task in tasks})
        self.units = nn.Module()
        for place in places:
            self.units.add_module(place.name, make_unit(place))
        names, meetings = [task.name for task in tasks], {place.name for place in places}
        self.weave(template, lambda graph: _woven(graph, names, meetings))

    def load_branch(self, branch: str, weights: Mapping[str, Tensor]) -> None:
        """Start a task's copy from the weights of a single-task backbone.

        Raises:
            InputError: no such task, or the weights are not those of this backbone.
        """
        load_branch(self.branches, branch, weights)


def meeting_places(template: Template, sites: str | Sequence[str]) -> list[Place]:
    """Where tasks' networks meet.

    Args:
        template: the backbone, traced.
        sites: `stages` for the ends of its stages, `end` for what it returns, or names of its nodes.

    Raises:
        InputError: there is no such node.
    """
    graph, root = template.evaluation, template.root
    if sites == "stages":
        nodes = stage_ends(graph, root)
    elif sites == "end":
        leaves = returned(graph)
        nodes = [node for node in graph.nodes if node in leaves]
    elif isinstance(sites, str):
        raise InputError(f"sites must be 'stages', 'end' or a list of names, got {sites!r}")
    elif not sites:
        raise InputError("sites: no names were given; leave it out, or name where tasks meet")
    else:
        nodes = named(graph, root, sites)
    return [place_of(node) for node in nodes]


def check_map(place: Place, what: str) -> None:
    """Raise `InputError` unless a place is a feature map, of which alone the method called `what` knows something."""
    if len(place.shape) != 3:
        raise InputError(
            f"{what} is defined for feature maps (channels, height, width), and {place.name!r} is {place.shape}; name "
            "others as sites, or take cross_stitch, which takes any"
        )


def check_beginning(same: float, rate: float) -> None:
    """Raise `InputError` unless units can begin with this share of a task's own feature, and learn at this rate."""
    if not 0 <= same <= 1:
        raise InputError(f"same must lie between 0 and 1, got {same!r}")
    if not rate > 0:
        raise InputError(f"rate must be above 0, got {rate!r}")


def _woven(template: fx.Graph, tasks: Sequence[str], meetings: set[str]) -> fx.Graph:
    """The graph that calls `branches.<task>`, `units.<place>` and `heads.<task>`."""
    woven = fx.Graph()
    values: dict[str, dict[fx.Node, fx.Node]] = {task: {} for task in tasks}
    for node in template.nodes:
        if node.op == "output":
            woven.output(predictions(woven, node, values))
        elif node.op == "placeholder":
            image = woven.placeholder("image")
            for own in values.values():
                own[node] = image
        else:
            for task, own in values.items():
                own[node] = copied(woven, node, f"branches.{task}", own)
            if node.meta["name"] in meetings:
                met = woven.call_module(f"units.{node.meta['name']}", tuple(own[node] for own in values.values()))
                for number, own in enumerate(values.values()):
                    own[node] = woven.call_function(operator.getitem, (met, number))
    return woven
