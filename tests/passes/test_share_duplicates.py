from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gatedeploy as gd
from gatedeploy.graph.build import channel_graph
from gatedeploy.graph.channels import BLEND, ChannelGraph
from gatedeploy.passes.prune_channels import PruneChannels
from gatedeploy.passes.share_duplicates import ShareDuplicates
from tests.graph.small import (
    Net,
    all_of,
    collapsed,
    conv,
    gate,
    lowered,
    mix,
    norm,
    operators,
    program_of,
    rows,
    the,
    weight,
)


def shared(network: nn.Module) -> ChannelGraph:
    return lowered(network, ShareDuplicates)


def both(one: Tensor, two: Tensor) -> dict[str, Tensor]:
    return {"one": one, "two": two}


def test_two_calls_of_a_layer_on_one_input_are_one() -> None:  # 1
    graph = shared(Net(lambda n, x: both(n.a(x), n.a(x)), a=conv()))
    assert operators(graph) == ["conv2d"]
    assert graph.outputs["one"].ids.tolist() == graph.outputs["two"].ids.tolist()


def test_calls_on_other_inputs_or_with_other_arguments_are_not() -> None:  # 1
    inputs = shared(Net(lambda n, x: both(n.a(x), n.a(x * 2)), a=conv()))
    assert len(all_of(inputs, "conv2d")) == 2
    strides = shared(Net(lambda n, x: both(n.a(x), F.conv2d(x, n.a.weight, n.a.bias, stride=2)), a=conv()))
    assert len(all_of(strides, "conv2d")) == 2
    biases = shared(Net(lambda n, x: both(n.a(x), F.conv2d(x, n.a.weight)), a=conv()))
    assert len(all_of(biases, "conv2d")) == 2
    numbers = shared(Net(lambda n, x: both(x * 1, x * 1.5), a=conv()))
    assert len(all_of(numbers, "mul")) == 2


def test_rows_of_another_layer_are_others_though_their_numbers_are_equal() -> None:  # 1
    network = Net(lambda n, x: both(n.a(x), n.b(x)), a=conv(), b=conv())
    network.b.load_state_dict(network.a.state_dict())
    assert operators(shared(network)) == ["conv2d", "conv2d"]


def test_channels_are_shared_one_by_one() -> None:  # 1
    """Two tasks' features differ in channel 0 alone, so only that is activated twice."""
    network = Net(
        lambda n, x: both(torch.relu(n.gate(n.own(x), n.all(x))), torch.relu(n.all(x))),
        **{"own": conv(), "all": conv(), "gate": gate(1, 0, 0, 0)},
    )
    first, second = all_of(shared(network), "relu")
    assert len(first.output.ids) == 4
    assert len(second.output.ids) == 1


def test_rows_of_one_layer_that_two_tasks_need_are_computed_once() -> None:  # 1
    network = Net(lambda n, x: both(n.a(x)[:, :3], n.a(x)[:, 1:]), a=conv())
    assert sorted(chain.from_iterable(rows(shared(network), "a.weight"))) == [0, 1, 2, 3]


def test_duplicates_of_duplicates_are_found() -> None:  # 1
    """Two branches all of whose gates chose the shared one fall together, whatever their depth."""

    def branch(n: Net, x: Tensor) -> Tensor:
        return n.c(torch.relu(n.norm(n.b(torch.relu(n.a(x))))))

    parts = {"a": conv(), "b": conv(4, 4), "c": conv(4, 2), "norm": norm()}
    graph = shared(Net(lambda n, x: both(branch(n, x), branch(n, x)), **parts))
    assert operators(graph) == ["conv2d", "relu", "conv2d", "batch_norm", "relu", "conv2d"]


def test_one_channel_that_differs_keeps_two_layers_apart() -> None:  # 1
    network = Net(
        lambda n, x: both(n.next(n.gate(n.own(x), n.all(x))), n.next(n.all(x))),
        **{"own": conv(), "all": conv(), "next": conv(4, 2), "gate": gate(1, 0, 0, 0)},
    )
    assert rows(shared(network), "next.weight") == [[0, 1], [0, 1]]


def test_other_orders_of_the_same_channels_are_other_inputs() -> None:  # 1
    network = Net(
        lambda n, x: both(n.next(torch.cat([n.a(x), n.b(x)], 1)), n.next(torch.cat([n.b(x), n.a(x)], 1))),
        **{"a": conv(3, 2), "b": conv(3, 2), "next": conv(4, 2)},
    )
    assert len(rows(shared(network), "next.weight")) == 2


def test_barriers_that_read_the_same_are_one() -> None:  # 2
    graph = shared(Net(lambda n, x: both(n.a(x).softmax(1), n.a(x).softmax(1)), a=conv()))
    assert operators(graph) == ["conv2d", "softmax"]


def test_barriers_of_several_results_are_one() -> None:  # 2
    def best(n: Net, x: Tensor) -> list[Tensor]:
        return list(torch.topk(n.a(x), 2, dim=1))

    graph = shared(Net(lambda n, x: {"one": best(n, x), "two": best(n, x)[1]}, a=conv()))
    assert operators(graph) == ["conv2d", "topk", "getitem", "getitem"]
    assert graph.outputs["one"][1].ids.tolist() == graph.outputs["two"].ids.tolist()


def test_barriers_with_other_arguments_are_not_one() -> None:  # 2
    graph = shared(Net(lambda n, x: both(n.a(x).cumsum(1), n.a(x).cumsum(2)), a=conv()))
    assert operators(graph) == ["conv2d", "cumsum", "cumsum"]


def test_views_along_other_axes_are_not_one() -> None:  # 2
    def run(n: Net, x: Tensor) -> dict[str, Tensor]:
        feature = n.norm(x[:, :, :6])
        return both(n.rows(feature, feature), n.columns(feature, feature))

    network = Net(run, norm=nn.LayerNorm((6, 8)), rows=gate(*6 * [1], axis=2), columns=gate(*8 * [1], axis=3))
    assert operators(shared(network)).count("view") == 2
    collapsed(network)


def test_a_blend_of_one_identity_is_that_identity() -> None:  # 3
    network = Net(lambda n, x: n.mix(n.a(x), n.a(x)), a=conv(3, 2), mix=mix([0.3, 2.0], [0.1, -4.0]))
    assert operators(shared(network)) == ["conv2d"]


def test_a_blend_passes_the_channels_that_are_equal_and_sums_the_others() -> None:  # 3
    def run(n: Net, x: Tensor) -> Tensor:
        everybodys = n.all(x)
        return n.mix(n.gate(n.own(x), everybodys), everybodys)

    parts = {"own": conv(), "all": conv(), "gate": gate(0, 1, 0, 0), "mix": gd.Mix(2, 4)}
    graph = shared(Net(run, **parts))
    everybodys, own = all_of(graph, "conv2d")
    blend = the(graph, BLEND)
    assert len(blend.output.ids) == 1
    ours, theirs = (operand.value.ids.tolist() for operand in blend.operands)
    assert (ours, theirs) == (own.output.ids.tolist(), [everybodys.output.ids[1]])


def test_blends_are_one_where_their_shares_are_equal() -> None:  # 1
    network = Net(
        lambda n, x: both(n.one(n.a(x), n.b(x)), n.two(n.a(x), n.b(x))),
        **{"a": conv(3, 2), "b": conv(3, 2), "one": mix([1.0, 0.0], [0.0, 0.0]), "two": mix([0.5, 0.0], [0.0, 0.0])},
    )
    first, second = all_of(shared(network), BLEND)
    assert len(first.output.ids) == 2
    assert len(second.output.ids) == 1


def test_a_weight_that_two_modules_own_is_one() -> None:  # 1
    network = Net(lambda n, x: both(n.a(x), n.b(x)), a=conv(bias=False), b=conv(bias=False))
    network.b.weight = network.a.weight
    assert operators(shared(network)) == ["conv2d"]


def test_values_of_weights_alone_are_computed_once() -> None:  # 2
    graph = shared(Net(lambda n, x: both(x * n.p.exp(), n.a(x) * n.p.exp()), p=weight(3, 1, 1), a=conv(3, 3)))
    assert operators(graph).count("exp") == 1


def test_it_ensures_that_barriers_differ() -> None:
    graph = channel_graph(program_of(Net(lambda n, x: both(n.a(x).softmax(1), n.a(x).softmax(1)), a=conv(bias=False))))
    PruneChannels().run(graph)
    assert ShareDuplicates().ensures(graph)  # the barriers' inputs still have two names
    ShareDuplicates().run(graph)
    assert ShareDuplicates().ensures(graph)
    graph.operations.append(all_of(graph, "softmax")[0])
    assert not ShareDuplicates().ensures(graph)
