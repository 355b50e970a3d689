from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import gatedeploy as gd
from gatedeploy.graph.build import channel_graph
from gatedeploy.graph.channels import BLEND, ChannelGraph
from gatedeploy.passes.resolve_gates import ResolveGates
from tests.graph.small import Net, all_of, collapsed, conv, gate, lowered, mix, operators, program_of, the, weight


def gated(choice: nn.Module, channels: int = 4) -> nn.Module:
    """Two convolutions and a gate between them."""
    return Net(lambda n, x: n.gate(n.own(x), n.shared(x)), own=conv(3, channels), shared=conv(3, channels), gate=choice)


def outputs_of(graph: ChannelGraph, *convolutions: int) -> list[int]:
    """The identities of the convolutions' output channels, one after the other."""
    made = all_of(graph, "conv2d")
    return [id_ for number in convolutions for id_ in made[number].output.ids.tolist()]


def test_a_select_becomes_the_identities_that_it_chooses() -> None:  # 1
    choice = gate(1, 0, 0, 1)
    graph = lowered(gated(choice), ResolveGates)
    own, shared = outputs_of(graph, 0), outputs_of(graph, 1)
    assert graph.outputs["y"].ids.tolist() == [own[0], shared[1], shared[2], own[3]]
    assert operators(graph) == ["conv2d", "conv2d"]


def test_the_threshold_is_strict() -> None:  # 1
    choice = gate(1, 1)
    choice.gate_logits.data = torch.tensor([0.0, 1e-30])
    graph = lowered(gated(choice, channels=2), ResolveGates)
    assert graph.outputs["y"].ids.tolist() == [outputs_of(graph, 1)[0], outputs_of(graph, 0)[1]]


def test_a_group_of_channels_is_chosen_together_and_the_last_may_be_smaller() -> None:  # 1
    choice = gate(0, 1, group=3, channels=4)
    graph = lowered(gated(choice), ResolveGates)
    assert graph.outputs["y"].ids.tolist() == outputs_of(graph, 1)[:3] + outputs_of(graph, 0)[3:]


def test_gates_behind_gates_are_looked_through() -> None:  # 1
    parts = {"a": conv(3, 2), "b": conv(3, 2), "first": gate(1, 0), "second": gate(0, 0)}
    graph = lowered(Net(lambda n, x: n.second(x[:, :2], n.first(n.a(x), n.b(x))), **parts), ResolveGates)
    assert graph.outputs["y"].ids.tolist() == [outputs_of(graph, 0)[0], outputs_of(graph, 1)[1]]


def test_a_gate_that_is_used_twice_chooses_twice() -> None:  # 1
    network = Net(
        lambda n, x: {"one": n.gate(n.a(x), n.b(x)), "two": n.gate(n.b(x), n.a(x))},
        **{"a": conv(3, 2), "b": conv(3, 2), "gate": gate(1, 0)},
    )
    graph = lowered(network, ResolveGates)
    a, b, b_again, a_again = (outputs_of(graph, number) for number in range(4))
    assert graph.outputs["one"].ids.tolist() == [a[0], b[1]]
    assert graph.outputs["two"].ids.tolist() == [b_again[0], a_again[1]]


def test_a_whole_tensor_is_chosen_by_one_gate() -> None:  # 1
    whole = gd.TensorGate()
    whole.gate_logits.data.fill_(-0.1)
    graph = lowered(gated(whole), ResolveGates)
    assert graph.outputs["y"].ids.tolist() == outputs_of(graph, 1)


def test_gates_may_choose_between_weights_and_from_the_picture_itself() -> None:  # 1
    network = Net(lambda n, x: n.gate(x, x * 2) * n.of_weights(n.p, n.q), p=weight(3, 1, 1), q=weight(3, 1, 1))
    network.gate, network.of_weights = gate(1, 0, 1), gate(0, 1, 1, axis=0)
    graph = lowered(network, ResolveGates)
    by_picture, by_weights = (operand.value.ids for operand in all_of(graph, "mul")[-1].operands)
    assert by_picture.tolist() == [graph.image.ids[0], all_of(graph, "mul")[0].output.ids[1], graph.image.ids[2]]
    assert [graph.weight_of[id_][0] for id_ in by_weights.tolist()] == ["q", "p", "p"]
    collapsed(network)


def test_a_mix_becomes_a_sum_with_constant_shares() -> None:  # 2
    quarter = mix([0.0, 0.0], [np.log(3), 0.0])
    network = Net(lambda n, x: n.mix(n.a(x), n.b(x)), a=conv(3, 2), b=conv(3, 2), mix=quarter)
    blend = the(lowered(network, ResolveGates), BLEND)
    assert blend.constants["share"] == pytest.approx(np.array([[0.25, 0.5], [0.75, 0.5]]))
    assert len(blend.operands) == 2


def test_a_mix_of_one_task_has_the_share_one() -> None:  # 2
    network = Net(lambda n, x: n.mix(n.a(x)), a=conv(3, 2), mix=mix([3.0, -3.0]))
    assert the(lowered(network, ResolveGates), BLEND).constants["share"].tolist() == [[1.0, 1.0]]


def soft(own: float) -> gd.SoftGate:
    made = gd.SoftGate()
    nn.init.constant_(made.weight, own)
    return made


def test_a_soft_gate_becomes_a_sum_with_constant_shares() -> None:  # 3
    blend = the(lowered(gated(soft(0.25)), ResolveGates), BLEND)
    assert blend.constants["share"].tolist() == [[0.25] * 4, [0.75] * 4]


@pytest.mark.parametrize(("own", "convolution"), [(1.0, 0), (0.0, 1)])
def test_a_soft_gate_of_exactly_0_or_1_is_no_sum(own: float, convolution: int) -> None:  # 3
    graph = lowered(gated(soft(own)), ResolveGates)
    assert graph.outputs["y"].ids.tolist() == outputs_of(graph, convolution)
    assert [type(module) for module in collapsed(gated(soft(own))).modules()].count(nn.Conv2d) == 1


def test_weights_of_a_soft_gate_may_differ_by_channel() -> None:  # 3
    network = Net(
        lambda n, x: BLENDED(n.a(x), n.b(x), n.w, 1), a=conv(3, 3), b=conv(3, 3), w=torch.tensor([1.0, 0, 0.5])
    )
    graph = lowered(network, ResolveGates)
    a, b = outputs_of(graph, 0), outputs_of(graph, 1)
    made = the(graph, BLEND).output.ids.tolist()
    assert graph.outputs["y"].ids.tolist() == [a[0], b[1], made[2]]
    collapsed(network)


def test_a_soft_gate_that_was_not_kept_between_0_and_1_is_refused() -> None:  # 3
    with pytest.raises(gd.InputError, match=r"a soft gate's weights lie between 0 and 1; these go from 1\.5 to 1\.5"):
        lowered(gated(soft(1.5)), ResolveGates)


BLENDED = torch.ops.gatedeploy.blend
SELECT, MIX = torch.ops.gatedeploy.select, torch.ops.gatedeploy.mix


@pytest.mark.parametrize(
    ("run", "where"),
    [
        (lambda n, x: SELECT(n.a(x), n.b(x), x.mean((0, 2, 3)), 1, 1), "select"),
        (lambda n, x: SELECT(n.a(x), n.b(x), n.logits.amax(0) * 2, 1, 1), "select"),
        (lambda n, x: MIX([n.a(x), n.b(x)], n.logits + x.mean(), 1), "mix"),
        (lambda n, x: BLENDED(n.a(x), n.b(x), x.mean((0, 2, 3)), 1), "blend"),
    ],
    ids=["of the picture", "of arithmetic on weights", "mix of the picture", "blend by the picture"],
)
def test_gates_that_are_computed_are_refused(run: Any, where: str) -> None:
    network = Net(run, a=conv(3, 3), b=conv(3, 3), logits=weight(2, 3))
    with pytest.raises(gd.InputError, match=f"{where}: this gate is computed .*; only gates whose logits are weights"):
        lowered(network, ResolveGates)


def test_it_ensures_that_no_gate_is_left() -> None:
    network = Net(lambda n, x: n.mix(n.a(x), n.gate(n.a(x), n.b(x))), a=conv(), b=conv(), gate=gate(1, 0, 0, 1))
    network.mix = gd.Mix(2, 4)
    graph = channel_graph(program_of(network))
    assert not ResolveGates().ensures(graph)
    ResolveGates().run(graph)
    assert ResolveGates().ensures(graph)


@pytest.mark.parametrize("kind", ["gate", "mix"])
def test_features_that_differ_in_shape_are_refused(kind: str) -> None:
    choose = {"gate": gate(1, 0, 0, 1), "mix": gd.Mix(2, 4)}[kind]
    network = Net(lambda n, x: n.choose(n.a(x), n.p), a=conv(), p=weight(1, 4, 8, 8), choose=choose)
    with pytest.raises(gd.InputError, match=r"features differ in shape; .* expand what is to be broadcast first"):
        collapsed(network)


@pytest.mark.parametrize("kind", ["gate", "mix"])
def test_a_gate_of_the_wrong_width_is_named(kind: str) -> None:
    network = Net(lambda n, x: n.part(n.a(x), n.b(x)), a=conv(), b=conv(), part=gate(1, 0, 1))
    if kind == "mix":
        network.part = gd.Mix(2, 3)
    with pytest.raises(gd.InputError, match=r"3.*4"):
        collapsed(network)
