from typing import Any

import torch
from torch import Tensor, nn

from gatedeploy.graph.build import channel_graph
from gatedeploy.graph.channels import BLEND, ChannelGraph
from gatedeploy.passes.prune_channels import PruneChannels
from gatedeploy.passes.resolve_gates import ResolveGates
from tests.graph.small import Net, conv, gate, lowered, mix, norm, operators, program_of, rows, the, weight


def pruned(network: nn.Module) -> ChannelGraph:
    return lowered(network, PruneChannels)


def test_a_layer_computes_the_rows_that_are_read() -> None:  # 1
    graph = pruned(Net(lambda n, x: n.a(x)[:, 1:3], a=conv(3, 4)))
    assert rows(graph, "a.weight") == [[1, 2]]
    assert rows(graph, "a.bias") == [[1, 2]]


def test_one_live_row_is_enough_to_stay_and_none_is_enough_to_go() -> None:  # 1
    live = pruned(Net(lambda n, x: n.a(x)[:, 3:] + n.b(x)[:, :1], a=conv(), b=conv()))
    assert rows(live, "a.weight") == [[3]]
    dead = pruned(Net(lambda n, x: n.gate(n.a(x), n.b(x)), a=conv(), b=conv(), gate=gate(0, 0, 0, 0)))
    assert rows(dead, "a.weight") == []
    assert rows(dead, "b.weight") == [[0, 1, 2, 3]]
    assert operators(dead) == ["conv2d"]


def test_everything_that_goes_channel_by_channel_is_cut_alike() -> None:  # 1, 3
    network = Net(
        lambda n, x: n.scale * n.slope(torch.relu(n.norm(n.depthwise(n.a(x))))).mean((2, 3))[:, ::2],
        **{"a": conv(), "depthwise": conv(4, 4, 3, groups=4), "norm": norm(), "slope": nn.PReLU(4)},
        scale=weight(1),
    )
    graph = pruned(network)
    for name in ("a.weight", "a.bias", "depthwise.weight", "depthwise.bias", "slope.weight"):
        assert rows(graph, name) == [[0, 2]], name
    for name in ("norm.weight", "norm.bias", "norm.running_mean", "norm.running_var"):
        assert rows(graph, name) == [[0, 2]], name


def test_a_blend_drops_its_shares_with_its_channels() -> None:  # 1
    network = Net(
        lambda n, x: n.mix(n.a(x), n.b(x))[:, 1:], a=conv(3, 2), b=conv(3, 2), mix=mix([0.0, 0.0], [0.0, 9.0])
    )
    blend = the(pruned(network), BLEND)
    assert blend.constants["share"].shape == (2, 1)
    assert blend.constants["share"][1, 0] > 0.99


def test_a_barrier_needs_all_its_channels_as_soon_as_one_is_read() -> None:  # 2
    graph = pruned(Net(lambda n, x: n.a(x).softmax(1)[:, :1], a=conv()))
    assert rows(graph, "a.weight") == [[0, 1, 2, 3]]


def test_a_barrier_that_nobody_reads_goes() -> None:  # 2
    graph = pruned(Net(lambda n, x: n.gate(n.a(x).softmax(1), n.b(x)), a=conv(), b=conv(), gate=gate(0, 0, 0, 0)))
    assert operators(graph) == ["conv2d"]


def test_a_view_along_another_axis_needs_all() -> None:  # 2
    # The gate chooses among rows of pixels, the convolution's channels lie elsewhere.
    network = Net(lambda n, x: n.gate(n.a(x), n.b(x))[:, :, :1], a=conv(), b=conv(), gate=gate(1, *[0] * 7, axis=2))
    assert rows(pruned(network), "a.weight") == [[0, 1, 2, 3]]


def test_one_result_of_several_keeps_the_operator() -> None:  # 2
    graph = pruned(Net(lambda n, x: torch.topk(n.a(x), 2, dim=1)[0], a=conv()))
    assert operators(graph) == ["conv2d", "topk", "getitem"]
    assert rows(graph, "a.weight") == [[0, 1, 2, 3]]


def test_a_layer_needs_all_of_its_input() -> None:  # 3
    graph = pruned(Net(lambda n, x: n.b(n.a(x))[:, :1], a=conv(), b=conv(4, 2)))
    assert rows(graph, "a.weight") == [[0, 1, 2, 3]]
    assert rows(graph, "b.weight") == [[0]]


def test_a_sum_needs_the_channel_of_its_position() -> None:  # 3
    graph = pruned(Net(lambda n, x: (n.a(x) + n.b(x))[:, 1:2], a=conv(), b=conv()))
    assert rows(graph, "a.weight") == rows(graph, "b.weight") == [[1]]


def test_a_factor_of_one_channel_serves_all() -> None:  # 3
    graph = pruned(Net(lambda n, x: (n.a(x) * n.map(x))[:, :2], a=conv(), map=conv(3, 1)))
    assert rows(graph, "a.weight") == [[0, 1]]
    assert rows(graph, "map.weight") == [[0]]


def test_a_second_output_keeps_what_the_first_does_not_need() -> None:  # 3
    def two(n: Net, x: Tensor) -> dict[str, Any]:
        feature = n.a(x)
        return {"one": feature[:, :1], "two": [n.b(feature[:, 2:])]}

    assert rows(pruned(Net(two, a=conv(), b=conv(2, 2))), "a.weight") == [[0, 2, 3]]


def test_the_dead_go_with_what_only_they_read() -> None:
    network = Net(lambda n, x: n.gate(n.b(n.a(x)), x), a=conv(3, 3), b=conv(3, 3), gate=gate(0, 0, 0))
    assert operators(pruned(network)) == []


def test_it_ensures_that_what_is_made_is_read() -> None:
    graph = channel_graph(program_of(Net(lambda n, x: n.a(x)[:, :1], a=conv())))
    ResolveGates().run(graph)
    assert not PruneChannels().ensures(graph)
    PruneChannels().run(graph)
    assert PruneChannels().ensures(graph)


def test_all_channels_can_be_taken() -> None:
    assert rows(pruned(Net(lambda n, x: n.a(x)[:, :4], a=conv())), "a.weight") == [[0, 1, 2, 3]]
