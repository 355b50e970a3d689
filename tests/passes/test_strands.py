"""What the search for a partition is told of a network, on networks whose ropes and channels are counted by hand."""

import torch
from torch import Tensor, nn

from gatedeploy.passes.bits import runs
from gatedeploy.passes.choose_reads import ChooseReads
from gatedeploy.passes.strands import Strands
from tests.graph.small import Net, conv, laid_out
from tests.prices import CUTTING


def strands(network: nn.Module) -> Strands:
    """As the search finds them: it is the first pass after kernels were chosen for the plain layout."""
    return Strands(laid_out(network, CUTTING, ChooseReads))


def test_channels_lie_side_by_side_that_the_same_layers_read() -> None:
    """Of five channels one layer reads the first two, another the last four: one is read by both, and lies between."""

    def run(n: Net, x: Tensor) -> dict[str, Tensor]:
        made = n.a(x).relu()
        return {"first": n.first(made[:, :2]), "last": n.last(made[:, 1:])}

    found = strands(Net(run, a=conv(3, 5), first=conv(2, 1), last=conv(4, 1)))
    source = found.family[0], found.rope[0]
    first, last = (layer.sources[source] for layers in found.layers[1:] for layer in layers)
    assert [first.bit_count(), last.bit_count(), (first & last).bit_count()] == [2, 4, 1]
    assert found.ropes[found.rope[0]].strands == (0b11111,)
    assert runs(first, 0b11111) == runs(last, 0b11111) == 1


def test_sums_along_which_channels_are_added_are_cut_alike() -> None:
    """a, and what b adds to it, are one strand of two families; so the layers at either end see the same channels."""

    def run(n: Net, x: Tensor) -> Tensor:
        made = n.a(x)
        return n.c((made + n.b(made.relu())).relu())

    found = strands(Net(run, a=conv(3, 8), b=conv(8, 8), c=conv(8, 2)))
    stream = next(number for number, rope in enumerate(found.ropes) if len(rope.families) == 2)
    assert found.ropes[stream].strands == (0xFF,)
    assert [made for made, rope in zip(found.made, found.rope, strict=True) if rope == stream] == [0xFF, 0xFF]
    (added,) = (each for all_ in found.added for each in all_)
    assert added.rope == stream
    assert added.image(0b1010) == 0b1010


def test_layers_at_one_depth_are_a_family_though_two_strands() -> None:
    net = Net(lambda n, x: {"a": n.a(x), "b": n.b(x), "c": n.c(x)}, a=conv(3, 4), b=conv(3, 2), c=conv(3, 4, 3))
    found = strands(net)
    a, b, c = found.family
    assert a == b != c  # c is another kind of layer
    assert [sorted(strand.bit_count() for strand in rope.strands) for rope in found.ropes] == [[2, 4], [4]]


def test_a_rope_lies_around_those_that_read_it_and_are_read_by_it() -> None:
    net = Net(lambda n, x: n.c(n.b(n.a(x).relu()).relu()), a=conv(3, 2), b=conv(2, 4), c=conv(4, 5))
    found = strands(net)
    assert found.around == [{0, 1}, {0, 1, 2}, {1, 2}]


def test_what_no_sum_makes_is_told_with_its_size() -> None:
    """The layer reads two of the picture's three channels."""
    found = strands(Net(lambda n, x: n.a(x[:, 1:]), a=conv(2, 1)))
    ((layer,),) = found.layers
    ((_, held, read),) = layer.fixed
    assert (held, read) == (3, 2)
    assert not layer.sources


def test_channels_lie_in_gray_order() -> None:
    """Three layers read every other of seven channels, every other two, the last four: each finds its four in few runs.

    As they are these are 4, 2 and 1 runs; in Gray order (1 3 2 6 7 5 4) they are 2, 1 and 1.
    """

    def run(n: Net, x: Tensor) -> dict[str, Tensor]:
        made = n.a(x).relu()
        each = made.split(1, dim=1)
        chosen = {name: [each[place] for place in range(7) if place + 1 >> bit & 1] for bit, name in enumerate("pqr")}
        return {name: n.get_submodule(name)(torch.cat(parts, dim=1)) for name, parts in chosen.items()}

    found = strands(Net(run, a=conv(3, 7), p=conv(4, 1), q=conv(4, 1), r=conv(4, 1)))
    reads = [layer.sources[found.family[0], found.rope[0]] for (layer,) in found.layers[1:]]
    assert sorted(runs(read, 0b1111111) for read in reads) == [1, 1, 2]
