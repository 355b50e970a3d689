"""The search's own arithmetic: what it predicts is what is chosen, and it never ends dearer than it began."""

import pytest
import torch
from torch import Tensor

from gatedeploy.graph.channels import ChannelGraph
from gatedeploy.graph.choices import choices
from gatedeploy.graph.prices import Prices
from gatedeploy.passes.choose_reads import ChooseReads
from gatedeploy.passes.partition_search import PartitionSearch
from gatedeploy.passes.strands import Strands
from tests.graph.small import Net, conv, gate, laid_out, mix, sums
from tests.prices import CUTTING, JOINING, prices

EACH = [CUTTING, JOINING, prices(narrowest=8, launch_ms=1e-4), prices(narrowest=8, launch_ms=1e-3)]


def residual(n: Net, x: Tensor) -> dict[str, Tensor]:
    """Two tasks and a shared branch: a layer each, gates, a mix, and a residual block each."""
    own = {name: n.get_submodule(f"first_{name}")(x).relu() for name in "abs"}
    chosen = {"a": n.gate_a(own["a"], own["s"]), "b": n.gate_b(own["b"], own["s"])}
    chosen["s"] = n.mix(chosen["a"], chosen["b"])
    after = {name: (value + n.get_submodule(f"second_{name}")(value)).relu() for name, value in chosen.items()}
    return {name: n.get_submodule(f"head_{name}")(n.last[name](after[name], after["s"])) for name in "ab"}


def network() -> Net:
    """Every tensor has whole vectors of 8: the search counts those, and so there is nothing to be rounded."""
    layers = {f"first_{name}": conv(3, 32, 3, padding=1) for name in "abs"}
    layers |= {f"second_{name}": conv(32, 32, 3, padding=1) for name in "abs"}
    layers |= {f"head_{name}": conv(32, 8) for name in "ab"}
    gates = {"gate_a": gate(1, 1, 0, 0, group=8), "gate_b": gate(0, 1, 1, 0, group=8)}
    made = Net(residual, **layers, **gates, mix=mix([0.0] * 32, [1.0] * 32))
    made.last = torch.nn.ModuleDict({"a": gate(1, 0, 0, 0, group=8), "b": gate(0, 1, 0, 0, group=8)})
    return made


def total(search: PartitionSearch) -> float:
    """Predicted milliseconds of all tensors."""
    partition = search.partition
    return sum(partition.price(tensor) for label in range(len(partition.holds)) for tensor in partition.tensors(label))


def chosen(graph: ChannelGraph) -> float:
    return sum(tensor.ms for _, tensor in choices(graph))


@pytest.mark.parametrize("at", EACH)
def test_it_ends_no_dearer_than_it_began(at: Prices) -> None:
    search = PartitionSearch(Strands(laid_out(network(), at, ChooseReads)), at)
    before = total(search)
    search.improve()
    assert total(search) <= before


@pytest.mark.parametrize("at", EACH)
def test_what_it_predicts_is_what_is_chosen(at: Prices) -> None:
    search = PartitionSearch(Strands(laid_out(network(), at, ChooseReads)), at)
    search.improve()
    assert total(search) == pytest.approx(chosen(laid_out(network(), at)), rel=1e-9)


@pytest.mark.parametrize("at", EACH)
def test_what_it_remembers_of_prices_is_still_so(at: Prices) -> None:
    search = PartitionSearch(Strands(laid_out(network(), at, ChooseReads)), at)
    search.improve()
    remembered = search.partition.remembered
    assert remembered
    assert remembered == pytest.approx({tensor: search.partition.price(tensor) for tensor in remembered}, rel=1e-12)


def test_rows_without_a_layer_are_cut_off_though_all_are_read_alike() -> None:
    """Half of a sum's rows are a layer's; as one tensor, the layer would compute the other half's zeros, too."""

    def run(n: Net, x: Tensor) -> dict[str, Tensor]:
        first, second = n.a(x).relu(), n.b(x).relu()
        total = torch.cat([n.c(first), first[:, 32:]], 1) + second
        return {"total": total, "first": first, "second": second}

    net = Net(run, a=conv(3, 64), b=conv(3, 64), c=conv(64, 32, 3, padding=1))
    graph = laid_out(net, prices(narrowest=8, launch_ms=1e-6))
    assert [len(made.output.ids) for made in sums(graph)[-2:]] == [32, 32]


def test_rows_that_something_is_added_to_are_cut_off_though_all_are_read_alike() -> None:
    """As one tensor, a mix would gather and add a number for every row, though it mixes few of them."""

    def run(n: Net, x: Tensor) -> dict[str, Tensor]:
        shared, own = n.a(x).relu(), n.b(x).relu()
        mixed = n.mix(n.gate(own, shared), shared)
        return {"one": n.c(shared), "two": n.d(mixed)}

    layers = {"a": conv(3, 64), "b": conv(3, 64), "c": conv(64, 64), "d": conv(64, 64)}
    chosen = gate(*[1] + [0] * 7, group=8)
    net = Net(run, **layers, gate=chosen, mix=mix([0.0] * 64, [1.0] * 64))
    graph = laid_out(net, prices(narrowest=8, launch_ms=1e-6))
    assert sorted(len(made.output.ids) for made in sums(graph)) == [8, 8, 8, 56, 56, 64, 64]
