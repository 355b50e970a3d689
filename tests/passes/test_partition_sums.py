from torch import Tensor

from gatedeploy.graph.cost import cost
from tests.graph.small import Net, calls, collapsed, conv, gate, laid_out, sums
from tests.prices import CUTTING, JOINING, prices


def two_tasks(n: Net, x: Tensor) -> dict[str, Tensor]:
    """Each of two tasks has half of the channels for itself."""
    shared, one, two = (layer(x).relu() for layer in (n.shared, n.one, n.two))
    return {"one": n.last_one(n.gate(one, shared)), "two": n.last_two(n.gate(two, shared))}


def network() -> Net:
    layers = {name: conv(3, 16) for name in ("shared", "one", "two")}
    return Net(two_tasks, **layers, gate=gate(*[1, 0] * 8), last_one=conv(16, 2), last_two=conv(16, 2))


def test_where_launches_are_dear_layers_of_one_input_are_one_layer() -> None:  # 2
    joined, apart = collapsed(network(), JOINING), collapsed(network())
    assert calls(joined.program).count("conv2d") < calls(apart.program).count("conv2d")
    first, *_ = sums(laid_out(network(), JOINING))
    assert len(first.output.ids) == 24  # 8 shared channels, 8 of each task


def test_where_small_kernels_are_as_good_nothing_is_wasted() -> None:  # 1
    net = network()
    assert cost(collapsed(net, CUTTING).program).macs == cost(collapsed(net).program).macs


def test_a_tensor_is_cut_by_who_reads_it() -> None:  # 1
    """One reader wants the first eight channels, the other one all: apart, nobody reads what it does not need."""

    def run(n: Net, x: Tensor) -> dict[str, Tensor]:
        made = n.a(x).relu()
        return {"some": n.some(made[:, :8]), "all": n.all(made)}

    net = Net(run, a=conv(3, 16), some=conv(8, 8), all=conv(16, 8))
    graph = laid_out(net, prices(narrowest=8, launch_ms=0))
    assert sorted(len(made.output.ids) for made in sums(graph)) == [8, 8, 8, 8]
    assert "slice" not in calls(collapsed(net, prices(narrowest=8, launch_ms=0)).program)


def test_layers_of_different_kinds_are_never_one() -> None:  # 2
    net = Net(lambda n, x: {"a": n.a(x), "b": n.b(x)}, a=conv(3, 4, 3, padding=1), b=conv(3, 4))
    assert len(sums(laid_out(net, JOINING))) == 2


def test_a_layer_that_reads_another_one_is_never_one_with_it() -> None:  # 2
    net = Net(lambda n, x: n.b(n.a(x).relu()) + 1, a=conv(3, 3), b=conv(3, 3))
    assert len(sums(laid_out(net, JOINING))) == 2
    collapsed(net, JOINING)
