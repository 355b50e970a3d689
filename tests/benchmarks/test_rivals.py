"""The rivals that are read off a gated network are the networks that a user would have written."""

from __future__ import annotations

import pytest
import torch

import gatedeploy as gd
from gatedeploy.artifact import ModelInfo
from gatedeploy.benchmarks.costs import count, total
from gatedeploy.benchmarks.rivals import (
    PlainRivals,
    mixture_of_recipe,
    parts_of,
    rivals_of_gates,
    rivals_of_parts,
    rivals_of_recipe,
    with_all_gates,
)
from gatedeploy.errors import InputError
from gatedeploy.graph.capture import capture
from gatedeploy.models.registry import build_backbone, build_head
from gatedeploy.program import evaluate
from gatedeploy.training.recipe import Recipe
from tests.backbones import PerTask
from tests.benchmarks.tiny import (
    BACKBONE_MACS,
    BACKBONE_PARAMS,
    EXAMPLE,
    HEAD_MACS,
    HEAD_PARAMS,
    RECIPE,
    RECIPE_INFO,
    SPEC,
    TASKS,
    Backbone,
    gated,
    head,
    tasks,
)


def test_all_gates_specific_and_all_gates_shared_cost_what_is_counted_by_hand() -> None:
    rivals = rivals_of_gates(capture(gated(3), EXAMPLE))
    single = [count(net, SPEC) for net in rivals.single.values()]
    assert [net.macs for net in single] == [BACKBONE_MACS + HEAD_MACS] * 3
    assert [net.params for net in single] == [BACKBONE_PARAMS + HEAD_PARAMS] * 3
    shared = count(rivals.shared, SPEC)
    assert (shared.macs, shared.params) == (BACKBONE_MACS + 3 * HEAD_MACS, BACKBONE_PARAMS + 3 * HEAD_PARAMS)


@pytest.mark.parametrize("kind", ["soft", "drawn"])
@pytest.mark.parametrize("sites", ["encoder", "decoder"])
def test_gates_behind_whole_branches_have_the_same_rivals(sites: str, kind: str) -> None:
    heads = {task.name: head() for task in tasks(3)}
    network = gd.gate(Backbone(), tasks(3), example_input=EXAMPLE, heads=heads, sites=sites, gates=kind).eval()
    rivals = rivals_of_gates(capture(network, EXAMPLE))
    assert [count(net, SPEC).macs for net in rivals.single.values()] == [BACKBONE_MACS + HEAD_MACS] * 3
    assert count(rivals.shared, SPEC).macs == BACKBONE_MACS + 3 * HEAD_MACS


def test_rivals_of_gates_predict_what_the_gated_network_predicts_with_such_gates() -> None:
    program = capture(gated(), EXAMPLE)
    rivals = rivals_of_gates(program)
    picture = torch.randn(2, 3, 8, 8)
    specific, shared = (evaluate(with_all_gates(program, choice), picture) for choice in (True, False))
    with torch.no_grad():
        for task, net in rivals.single.items():
            torch.testing.assert_close(net(picture)[task].double(), specific[task], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(rivals.shared(picture)[task].double(), shared[task], rtol=1e-4, atol=1e-5)


def test_the_gated_network_keeps_its_gates() -> None:
    program = capture(gated(), EXAMPLE)
    before = {name: weight.clone() for name, weight in program.weights.items()}
    with_all_gates(program, specific=True)
    assert all(torch.equal(weight, before[name]) for name, weight in program.weights.items())


def test_rivals_of_parts_cost_as_much_as_those_of_gates() -> None:
    ours = rivals_of_gates(capture(gated(), EXAMPLE))
    made = rivals_of_parts(Backbone, lambda task: head(), tasks(), SPEC)
    assert count(made.shared, SPEC) == count(ours.shared, SPEC)
    assert [count(net, SPEC) for net in made.single.values()] == [count(net, SPEC) for net in ours.single.values()]
    assert not [module for module in made.shared.modules() if isinstance(module, torch.nn.BatchNorm2d)]


def test_a_network_without_gates_has_no_rivals_in_it() -> None:
    plain = capture(PerTask({"depth": Backbone()}).eval(), EXAMPLE)
    with pytest.raises(InputError, match="this network has no gates, so the networks it is compared with cannot"):
        rivals_of_gates(plain)


def test_a_gate_that_is_computed_is_explained() -> None:
    class Computed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = torch.nn.Conv2d(3, 4, 1), torch.nn.Conv2d(3, 4, 1)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            logits = x.mean((0, 2, 3)).sum().expand(4) * 1.0
            return {"depth": torch.ops.gatedeploy.select(self.one(x), self.two(x), logits, 1, 1)}

    with pytest.raises(InputError, match=r"the gate '\w+' is computed from the picture and cannot be set"):
        rivals_of_gates(capture(Computed(), EXAMPLE))


@pytest.fixture(scope="module")
def by_recipe() -> PlainRivals:
    return rivals_of_recipe(RECIPE_INFO)


def test_rivals_of_a_recipe_have_its_backbone_and_heads(by_recipe: PlainRivals) -> None:
    backbone = build_backbone("resnet20", width=0.25, in_channels=1)
    size = (16, 16)
    heads = {
        "kind": build_head("linear", backbone.out_channels, TASKS[0], size),
        "depth": build_head("dense", backbone.out_channels, TASKS[1], size, width=8),
    }
    for task, net in by_recipe.single.items():
        plain = torch.nn.Sequential(backbone, heads[task])
        assert count(net, RECIPE_INFO.input).macs == count(plain, RECIPE_INFO.input).macs


def test_passes_of_experts_cost_as_much_as_single_task_networks_and_the_routers(by_recipe: PlainRivals) -> None:
    single = total(count(net, RECIPE_INFO.input) for net in by_recipe.single.values())
    mixture = mixture_of_recipe(RECIPE_INFO)
    passes = count(mixture.request(together=False), RECIPE_INFO.input)
    routers = sum(
        module.in_features * module.out_features
        for name, module in mixture.named_modules()
        if name.endswith("router.score") and isinstance(module, torch.nn.Linear)
    )
    assert passes.macs == single.macs + len(TASKS) * routers


def test_rivals_of_a_recipe_need_no_pretrained_weights() -> None:
    recipe = Recipe.from_plain({**RECIPE, "model": {**RECIPE["model"], "weights": "nowhere.pth"}})  # type: ignore[dict-item]
    make_backbone, make_head = parts_of(recipe, RECIPE_INFO.input)
    features = make_backbone().eval()(torch.zeros(1, 1, 16, 16))
    assert make_head(TASKS[1])(features).shape == (1, 1, 16, 16)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({}, "the file names no recipe, so its backbone is not known"),
        (
            {**RECIPE, "model": {"backbone": {"name": "my.module:net"}, "head": {"name": "dense"}}},
            r"the backbone 'my\.module:net' is none of gatedeploy's \(resnet20,",
        ),
        (
            {**RECIPE, "model": {"backbone": {"name": "resnet50"}, "head": {"name": "dense"}}},
            "the backbone has no basic blocks and fewer than two of",
        ),
    ],
)
def test_why_there_is_no_mixture_of_experts(recipe: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        mixture_of_recipe(ModelInfo(TASKS, gd.InputSpec(3, 16, 16), recipe=recipe))
