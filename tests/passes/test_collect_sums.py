import numpy as np
import torch
from torch import Tensor, nn

from gatedeploy.graph.channels import ChannelGraph
from gatedeploy.graph.sums import Sum
from gatedeploy.passes.collect_sums import CollectSums
from tests.graph.small import Net, all_of, collapsed, conv, gate, laid_out, mix, norm, sums
from tests.prices import CUTTING, JOINING


def collected(network: nn.Module) -> ChannelGraph:
    graph = laid_out(network, CUTTING, CollectSums)
    collapsed(network, CUTTING)
    collapsed(network, JOINING)
    return graph


def kinds(made: Sum) -> list[tuple[int, ...] | None]:
    """The kernel of each term, None for channels that are added."""
    return [None if term.kind is None else term.kind.kernel for term in made.terms]


def test_a_layer_with_its_norm_is_a_sum_of_one_term() -> None:  # 1
    graph = collected(Net(lambda n, x: n.norm(n.a(x)), a=conv(3, 4, 3), norm=norm()))
    (made,) = sums(graph)
    assert kinds(made) == [(3, 3)]
    assert made.offset is not None


def test_a_depthwise_layer_stays_what_it_is() -> None:  # 1
    graph = collected(Net(lambda n, x: n.a(x), a=conv(3, 3, 3, groups=3)))
    assert sums(graph) == []


def test_a_mix_adds_its_features() -> None:  # 2
    parts = {"a": conv(3, 2), "b": conv(3, 2), "mix": mix([0.0, 1.0], [0.0, 0.0])}
    graph = collected(Net(lambda n, x: n.mix(n.a(x).relu(), n.b(x).relu()), **parts))
    blended = sums(graph)[-1]
    assert kinds(blended) == [None, None]
    np.testing.assert_allclose(blended.terms[0].factor, [0.5, 1 / (1 + np.exp(-1))])


def test_a_feature_that_two_tasks_take_is_added_once() -> None:  # 2
    def run(n: Net, x: Tensor) -> dict[str, Tensor]:
        own, shared = n.own(x).relu(), n.shared(x).relu()
        taken = n.gate(own, shared)
        return {"y": n.mix(taken, shared, shared), "own": own, "shared": shared}

    parts = {
        "own": conv(3, 2),
        "shared": conv(3, 2),
        "gate": gate(1, 0),
        "mix": mix([0.0, 0.0], [0.0, 0.0], [0.0, 0.0]),
    }
    (blended,) = (made for made in sums(collected(Net(run, **parts))) if kinds(made)[0] is None)
    assert len(blended.output.ids) == 1
    np.testing.assert_allclose([term.factor[0] for term in blended.terms], [1 / 3, 2 / 3])


def test_two_layers_that_are_added_are_one_sum() -> None:  # 3, 4
    graph = collected(Net(lambda n, x: n.a(x) + n.b(x), a=conv(3, 4, 3, padding=1), b=conv(3, 4)))
    (made,) = sums(graph)
    assert sorted(kinds(made), key=str) == [(1, 1), (3, 3)]


def test_twice_a_feature_is_added_twice() -> None:  # 3
    graph = collected(Net(lambda n, x: torch.add(n.a(x), n.b(x), alpha=3).relu() + n.a(x), a=conv(), b=conv()))
    assert all_of(graph, "add") == []


def test_a_row_that_others_read_too_stays_where_it_is() -> None:  # 4
    def run(n: Net, x: Tensor) -> dict[str, Tensor]:
        read = n.a(x)
        return {"y": read + n.b(x), "z": read.relu()}

    graph = collected(Net(run, a=conv(), b=conv()))
    assert [kinds(made) for made in sums(graph)] == [[(1, 1)], [None, (1, 1)]]


def test_rows_of_layers_that_read_different_channels_stay_apart() -> None:  # 4
    """Moved, each row would read both features, and the two layers compute twice as much."""

    def run(n: Net, x: Tensor) -> Tensor:
        first, second = n.a(x).relu(), n.b(x).relu()
        return torch.cat([n.c(first), n.d(second)], 1) + n.e(x)

    layers = {"a": conv(3, 8), "b": conv(3, 8), "c": conv(8, 4), "d": conv(8, 4), "e": conv(3, 8, bias=False)}
    graph = collected(Net(run, **layers))
    assert [len(made.output.ids) for made in sums(graph)] == [8, 8, 4, 4, 8, 8]


def test_what_is_spread_over_the_picture_is_no_addition_of_equals() -> None:  # 3
    network = Net(lambda n, x: n.a(x) + n.b(x).mean((2, 3), keepdim=True), a=conv(), b=conv())
    assert len(all_of(collected(network), "add")) == 1


def test_numbers_that_may_be_whole_are_left_alone() -> None:  # 3
    network = Net(lambda n, x: (n.a(x) > 0).to(torch.int64) + (x[:, :1] > 0).to(torch.int64).expand(-1, 4, -1, -1))
    network.a = conv()
    assert len(all_of(collected(network), "add")) == 1
