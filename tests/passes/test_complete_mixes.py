import torch
from torch import Tensor

from gatedeploy.passes.complete_mixes import CompleteMixes
from tests.graph.small import Net, collapsed, conv, gate, laid_out, mix, sums
from tests.prices import CUTTING, JOINING


def parts(inputs: int = 4) -> dict[str, torch.nn.Module]:
    """Two tasks; of four channels the first is the first task's own."""
    layers = {"shared": conv(), "own": conv(), "head": conv(), "last": conv(inputs, 2)}
    return {**layers, "gate": gate(1, 0, 0, 0), "mix": mix([0.0] * 4, [1.0] * 4)}


def mixed(n: Net, x: Tensor) -> tuple[Tensor, Tensor]:
    shared = n.shared(x).relu()
    taken = n.gate(n.own(x).relu(), shared)
    return taken, n.mix(taken, shared)


def mixing(network: Net) -> tuple[list[int], list[int]]:
    """How many rows every sum without a layer has, and how many tensors the last layer reads."""
    graph = laid_out(network, CUTTING, CompleteMixes)
    made = sums(graph)
    owner = {id_: number for number, each in enumerate(graph.operations) for id_ in each.output.ids.tolist()}
    read = {owner[id_] for id_ in made[-1].terms[0].reads.ids.tolist()}
    return [len(each.output.ids) for each in made if all(term.kind is None for term in each.terms)], sorted(read)


def test_a_layer_behind_a_mix_reads_one_tensor() -> None:  # 1, 2
    def run(n: Net, x: Tensor) -> dict[str, Tensor]:
        taken, feature = mixed(n, x)
        return {"first": n.head(taken), "y": n.last(feature)}

    network = Net(run, **{**parts(), "head": conv(4, 2)})
    rows, read = mixing(network)
    assert rows == [4]
    assert len(read) == 1
    for prices in (CUTTING, JOINING):
        collapsed(network, prices)


def test_through_an_activation_too() -> None:  # 2
    def run(n: Net, x: Tensor) -> dict[str, Tensor]:
        shared = n.shared(x)
        taken = n.gate(n.own(x), shared)
        last = n.last(n.mix(taken, shared).sigmoid())
        return {"first": n.head(taken.sigmoid()), "y": last, "second": n.more(shared.sigmoid())}

    network = Net(run, **{**parts(), "head": conv(4, 2), "more": conv(4, 2)})
    rows, read = mixing(network)
    assert rows == [4]
    assert len(read) == 1
    collapsed(network, CUTTING)


def test_what_is_no_sum_is_not_led_to_the_mix() -> None:  # 2
    """A softmax wants the mixed feature in order; a copy of three channels would only be in its way."""

    def run(n: Net, x: Tensor) -> dict[str, Tensor]:
        taken, feature = mixed(n, x)
        return {"first": n.head(taken), "y": feature.softmax(1)}

    network = Net(run, **{**parts(), "head": conv(4, 2)})
    graph = laid_out(network, CUTTING, CompleteMixes)
    (made,) = (each for each in sums(graph) if all(term.kind is None for term in each.terms))
    assert len(made.output.ids) == 1
    collapsed(network, CUTTING)
