"""What a user would run instead of a collapsed network: T single-task networks, one shared encoder, experts.

Rivals of plain layers go through the compiler too, which folds their norms as it folds those of the collapsed network:
they are compared as they would be deployed. Their weights may be random, for neither multiply-adds nor milliseconds
depend on them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from gatedeploy.artifact import ModelInfo
from gatedeploy.assembly import makers
from gatedeploy.compiler import Collapsed, collapse
from gatedeploy.errors import InputError
from gatedeploy.gating.multi_head import MultiHead
from gatedeploy.gating.operators import BLEND, SELECT
from gatedeploy.lowering import lower
from gatedeploy.models.moe import MOE, MoENetwork, moe
from gatedeploy.models.registry import backbone_names
from gatedeploy.program import Program, with_tasks
from gatedeploy.specs import InputSpec, Task
from gatedeploy.training.recipe import Recipe


@dataclass(frozen=True, eq=False)
class PlainRivals:
    """The two rivals without experts.

    Args:
        single: the single-task networks, by task.
        shared: uniform MTL, one encoder for all tasks.
    """

    single: dict[str, Collapsed]
    shared: Collapsed


def rivals_of_gates(gated: Program) -> PlainRivals:
    """The plain rivals that are inside every gated network, whatever its backbone.

    With every gate at 1 no task reads anything that is not its own: each is a single-task network. With every gate at
    0 all tasks read the shared feature at every site: uniform MTL.

    Raises:
        InputError: the network has no gates, or a gate is computed from the picture and cannot be set.
    """
    specific = with_all_gates(gated, specific=True)
    single = {task: _lowered(with_tasks(specific, [task])) for task in gated.outputs}
    return PlainRivals(single, _lowered(with_all_gates(gated, specific=False)))


def _lowered(gated: Program) -> Collapsed:
    """What `collapse` makes of a network; that it does so exactly is shown by tests, not each time it is a rival."""
    return Collapsed(lower(gated).program).to(gated.dtype)


def with_all_gates(gated: Program, specific: bool) -> Program:
    """The same network with every gate at 1 (`specific`) or at 0 (shared).

    Raises:
        InputError: as `rivals_of_gates`.
    """
    nodes = [node for node in gated.graph.nodes if node.target in (SELECT, BLEND)]
    gates = [node.args[2] for node in nodes]
    if not gates:
        raise InputError("this network has no gates, so the networks it is compared with cannot be read off it")
    for gate in gates:
        if gate.op != "get_attr":
            raise InputError(f"the gate {gate.name!r} is computed from the picture and cannot be set to a constant")
    least = {SELECT: -1.0, BLEND: 0.0}  # a logit, and a share
    chosen = {str(node.args[2].target): 1.0 if specific else least[node.target] for node in nodes}
    weights = {
        name: torch.full_like(weight, chosen[name]) if name in chosen else weight
        for name, weight in gated.weights.items()
    }
    return replace(gated, weights=weights)


def rivals_of_parts(
    make_backbone: Callable[[], nn.Module],
    make_head: Callable[[Task], nn.Module],
    tasks: Sequence[Task],
    input: InputSpec,
) -> PlainRivals:
    """The plain rivals made of a backbone and heads.

    Args:
        make_backbone: a trunk with fresh weights.
        make_head: a head for a task, with fresh weights.
        tasks: the questions.
        input: the picture.
    """
    example = torch.zeros(2, *input.shape)

    def folded(*chosen: Task) -> Collapsed:
        network = MultiHead(make_backbone(), {task.name: make_head(task) for task in chosen})
        return collapse(network.eval(), example_input=example, target=None)

    return PlainRivals({task.name: folded(task) for task in tasks}, folded(*tasks))


def rivals_of_recipe(info: ModelInfo) -> PlainRivals:
    """The plain rivals of a network that was trained by a recipe.

    Raises:
        InputError: there is no recipe, or its backbone is none of ours.
    """
    recipe = recipe_of(info)
    return rivals_of_parts(*parts_of(recipe, info.input), info.tasks, info.input)


def mixture_of_recipe(info: ModelInfo) -> MoENetwork:
    """The recipe's backbone as a mixture of experts with the recipe's heads, randomly initialised.

    Raises:
        InputError: there is no recipe, its backbone is none of ours, or one that has no form with experts.
    """
    recipe = recipe_of(info)
    make_backbone, make_head = parts_of(recipe, info.input)
    heads = {task.name: make_head(task) for task in info.tasks}
    options = recipe.method.options if recipe.method is not None and recipe.method.name == MOE else {}
    return moe(make_backbone(), info.tasks, heads, torch.zeros(2, *info.input.shape), **options).eval()


def recipe_of(info: ModelInfo) -> Recipe:
    """The recipe that a network was trained by.

    Raises:
        InputError: there is none.
    """
    if not info.recipe:
        raise InputError("the file names no recipe, so its backbone is not known")
    return Recipe.from_plain(info.recipe)


def parts_of(recipe: Recipe, input: InputSpec) -> tuple[Callable[[], nn.Module], Callable[[Task], nn.Module]]:
    """What makes the recipe's backbone, and what makes its heads.

    Raises:
        InputError: the backbone is none of ours.
    """
    backbone = recipe.model.backbone
    if backbone.name not in backbone_names():
        raise InputError(f"the backbone {backbone.name!r} is none of gatedeploy's ({', '.join(backbone_names())})")
    return makers(replace(recipe, model=replace(recipe.model, weights=None)), input)
