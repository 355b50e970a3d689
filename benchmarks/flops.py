"""`gatedeploy flops`: what a network and the plain networks that it replaces cost, by fvcore's count."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from gatedeploy.assembly import describe_parts
from gatedeploy.benchmarks.candidates import assemble, candidate, gated_candidate
from gatedeploy.benchmarks.costs import NetworkCost
from gatedeploy.benchmarks.rivals import rivals_of_gates, rivals_of_parts
from gatedeploy.benchmarks.subjects import read_subjects
from gatedeploy.compiler import collapse
from gatedeploy.gating.network import gate
from gatedeploy.graph.capture import capture
from gatedeploy.models.registry import build_method
from gatedeploy.training.recipe import Recipe

FORMS = ("stl", "mtl", "gated", "collapsed")

Costs = dict[str, dict[str, Any]]
"""By form, those of `FORMS` that apply: "macs" (1 MAC = one multiply-add), "params" and "per_operator", and what
`NetworkCost` knows besides. STL is the sum over the single-task networks; all but "gated" have their norms folded."""


def file_costs(path: Path | str) -> Costs:
    """The costs of the network in a file, and of its rivals as far as the file lets them be made.

    Args:
        path: a checkpoint, a collapsed network, a bundle, or the folder of a training.

    Raises:
        InputError: the file cannot be used.
        CheckError: a bundle is damaged.
    """
    subjects = read_subjects([path])
    found, _ = assemble(subjects, experts=False)
    costs = {"collapsed" if each.kind == "bundle" else each.kind: each.cost for each in found}
    if "gated" not in costs:
        bundle = subjects[0].bundle
        remembered = bundle.manifest.costs.gated if bundle else subjects[0].info.report.get("gated", {})
        if _known(remembered):
            costs["gated"] = NetworkCost(remembered["macs"], remembered["params"])
    return _plain(costs)


def recipe_costs(recipe: Recipe, source: str) -> Costs:
    """The costs of the network that a recipe describes, before it is trained.

    What a gated network collapses to is not known yet; that of another method is counted collapsed, as it is made.

    Args:
        recipe: says which tasks there are and how they are gated; its pictures need not be there.
        source: the recipe's name, for messages.

    Raises:
        InputError: a part of the recipe is not known, or the backbone cannot be gated or used as it says.
    """
    data, make_backbone, make_head = describe_parts(recipe, source)
    input, tasks = data.input, recipe.chosen_tasks(data.tasks)
    example = torch.zeros(2, *input.shape)
    heads = {task.name: make_head(task) for task in tasks}
    if recipe.method is None:
        program = capture(
            gate(make_backbone(), tasks, example_input=example, heads=heads, **recipe.gates.placing), example, input
        )
        rivals, own = rivals_of_gates(program), gated_candidate(program)
    else:
        made = build_method(recipe.method.name, make_backbone(), tasks, heads, example, **recipe.method.options)
        thin = collapse(made.eval(), example_input=example, target=None)
        rivals = rivals_of_parts(make_backbone, make_head, tasks, input)
        own = candidate("collapsed", [thin], input)
    single = candidate("stl", list(rivals.single.values()), input)
    shared = candidate("mtl", [rivals.shared], input)
    return _plain({each.kind: each.cost for each in (single, shared, own)})


def _plain(costs: Mapping[str, NetworkCost]) -> Costs:
    return {form: costs[form].plain() for form in FORMS if form in costs}


def _known(remembered: Any) -> bool:
    """Whether a file remembers the cost of the gated network; what it says is not trusted to be numbers."""
    return isinstance(remembered, Mapping) and all(type(remembered.get(key)) is int for key in ("macs", "params"))
