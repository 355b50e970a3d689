"""What a layout is said to cost, and to save."""

from __future__ import annotations

import pytest
from torch import Tensor

import gatedeploy as gd
from gatedeploy.graph.choices import SiteChoice
from gatedeploy.lowering import lower
from gatedeploy.price_tables import TARGETS, prices_of
from tests.gate_patterns import set_gates
from tests.graph.small import Net, conv, gate, program_of
from tests.prices import CUTTING, JOINING
from tests.structures import STRUCTURES, Structure
from tests.test_collapse_equals_gated import captured, for_each


@for_each(STRUCTURES[::5])
@pytest.mark.parametrize("runtime", TARGETS.values())
def test_what_is_chosen_is_predicted_to_cost_no_more_than_a_plain_layout(structure: Structure, runtime: str) -> None:
    network, program = captured(structure)
    set_gates(network, "random, half")
    report = gd.collapse(program, target=prices_of(runtime)).report  # verified, whichever of the two it is
    assert report is not None
    assert sum(site.ms for site in report.layout) <= sum(site.plain_ms for site in report.layout) * (1 + 1e-9)


def layout(joining: bool) -> tuple[SiteChoice, ...]:
    """Two tasks with half of eight channels for themselves."""

    def run(n: Net, x: Tensor) -> dict[str, Tensor]:
        shared, one, two = (layer(x).relu() for layer in (n.shared, n.one, n.two))
        return {"one": n.last_one(n.gate(one, shared)), "two": n.last_two(n.gate(two, shared))}

    layers = {name: conv(3, 8) for name in ("shared", "one", "two")}
    network = Net(run, **layers, gate=gate(*[1, 0] * 4), last_one=conv(8, 2), last_two=conv(8, 2))
    return lower(program_of(network), JOINING if joining else CUTTING).layout


def test_layers_that_became_one_are_one_site() -> None:
    first, *_ = layout(joining=True)
    assert first.layers == ("shared", "one", "two")
    (tensor,) = first.tensors
    assert tensor.rows == {"": 16}  # 4 shared, 4 of each task, and as many more as make whole vectors
    assert (first.kernels, first.copied_bytes, first.tactics) == (1, 0, {"whole": 1})
    # A millisecond for each launch, and one for 64 rows, the fewest, of 3 · 64 multiply-adds at 1e6 a millisecond.
    assert first.ms == pytest.approx(1 + 64 * 3 * 64 / 1e6)
    assert first.plain_ms == pytest.approx(3 * first.ms)


def test_layers_that_stay_apart_are_sites_of_their_own() -> None:
    found = layout(joining=False)
    assert [site.layers for site in found] == [("shared",), ("one",), ("two",), ("last_one",), ("last_two",)]
    assert found[0].ms == pytest.approx(4 * 3 * 64 / 1e6)
