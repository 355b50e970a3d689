import torch
from torch import Tensor, nn

from gatedeploy.graph.channels import ChannelGraph
from gatedeploy.passes.choose_layout import ChooseLayout
from tests.graph.small import Net, all_of, calls, collapsed, conv, gate, lowered, norm, the, weight


def laid_out(network: nn.Module) -> ChannelGraph:
    return lowered(network, ChooseLayout)


def order(graph: ChannelGraph, name: str, operand: int = 0) -> list[int]:
    """The identities that the one operation of this name reads, in its order."""
    return the(graph, name).operands[operand].value.ids.tolist()


def scrambled(n: Net, x: Tensor) -> Tensor:
    """A feature in the order 2, 0, 1: no layer made it, so its order is fixed."""
    first, last = x.abs().split([2, 1], dim=1)
    return torch.cat([last, first], 1)


def test_a_sum_takes_the_order_of_what_is_fixed_and_the_layer_follows() -> None:  # 1, 2
    network = Net(lambda n, x: n.next(n.a(x) + scrambled(n, x)), a=conv(3, 3), next=conv(3, 2))
    graph = laid_out(network)
    convolution, _ = all_of(graph, "conv2d")
    absolute = the(graph, "abs")
    assert order(graph, "add", 1) == absolute.output.ids.tolist()
    assert order(graph, "add", 0) == convolution.output.ids.tolist()
    assert convolution.output.ids.tolist() != sorted(convolution.output.ids.tolist())
    assert calls(collapsed(network).program) == ["conv2d", "abs", "add", "conv2d"]


def test_a_sum_of_free_operands_takes_the_first_ones_order() -> None:  # 1
    network = Net(lambda n, x: n.next(n.a(x) + torch.cat([n.b(x), n.b(x * 2)], 1)), a=conv(), b=conv(3, 2))
    network.next = conv(4, 2)
    graph = laid_out(network)
    assert order(graph, "add", 0) == all_of(graph, "conv2d")[0].output.ids.tolist()
    collapsed(network)


def test_a_residual_block_behind_gates_copies_nothing() -> None:  # 1, 2
    """Every feature of a residual stream comes in the order of its start: channels by tensor, not by number."""

    def run(n: Net, x: Tensor) -> Tensor:
        stem = torch.relu(n.gate(n.own(x), n.shared(x)))
        return n.last(torch.relu(n.norm(n.body(stem)) + stem))

    parts = {"own": conv(), "shared": conv(), "gate": gate(1, 0, 1, 0), "body": conv(4, 4), "last": conv(4, 2)}
    network = Net(run, **parts, norm=norm())
    names = calls(collapsed(network).program)
    assert "index_select" not in names
    assert "slice" not in names


def test_a_layer_that_two_sums_want_in_two_orders_serves_both() -> None:  # 2
    """The first sum has its wish; the second one reads what it finds by index."""

    def run(n: Net, x: Tensor) -> dict[str, Tensor]:
        feature, fixed = n.a(x), x.abs()
        swapped = torch.cat([fixed[:, 1:], fixed[:, :1]], 1)
        return {"one": n.next(feature + fixed), "two": n.next(feature + swapped * 2)}

    collapsed(Net(run, a=conv(3, 3), next=conv(3, 2)))


def test_a_layer_of_which_a_sum_reads_a_part_stays_as_it_is() -> None:  # 2
    def run(n: Net, x: Tensor) -> dict[str, Tensor]:
        feature = n.a(x)
        return {"sum": feature[:, :3] + scrambled(n, x), "rest": torch.relu(feature[:, 3:])}

    network = Net(run, a=conv())
    graph = laid_out(network)
    for convolution in all_of(graph, "conv2d"):
        assert convolution.output.ids.tolist() == sorted(convolution.output.ids.tolist())
    collapsed(network)


def test_two_fixed_operands_of_other_orders_stay_correct() -> None:  # 1
    def run(n: Net, x: Tensor) -> Tensor:
        one, two = torch.relu(x), torch.sigmoid(torch.cat([x[:, 2:], x[:, 1:2], x[:, :1]], 1))
        return n.next(one * two + one)

    collapsed(Net(run, next=conv(3, 2)))


def test_an_operand_that_repeats_a_channel_stays_correct() -> None:  # 2
    def run(n: Net, x: Tensor) -> Tensor:
        feature = n.a(x)
        return n.next(torch.cat([feature[:, :2], feature[:, :2]], 1) + n.b(x))

    collapsed(Net(run, a=conv(), b=conv(), next=conv(4, 2)))


def test_factors_that_are_weights_follow() -> None:  # 1
    """A weight has no order of its own: its channels are cut in the order of what they multiply."""
    network = Net(lambda n, x: n.next(n.scale * scrambled(n, x)), scale=weight(3, 1, 1), next=conv(3, 2))
    thin = collapsed(network)
    assert calls(thin.program) == ["abs", "mul", "conv2d"]


def test_outputs_come_in_their_own_order() -> None:
    network = Net(lambda n, x: {"sum": n.a(x) + scrambled(n, x), "plain": n.a(x)}, a=conv(3, 3))
    collapsed(network)


def test_it_ensures_that_nothing_is_made_twice() -> None:
    graph = laid_out(Net(lambda n, x: n.a(x) + x, a=conv(3, 3)))
    assert ChooseLayout().ensures(graph)
    graph.operations.append(graph.operations[0])
    assert not ChooseLayout().ensures(graph)
