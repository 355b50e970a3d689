"""What the search for a partition is told of a network, on networks whose strands and atoms are counted by hand."""

import pytest
import torch
from torch import Tensor, nn

from gatedeploy.passes.choose_reads import ChooseReads
from gatedeploy.passes.strands import CHUNK, PIECES, Strands
from tests.graph.small import Net, conv, laid_out
from tests.prices import CUTTING


def strands(network: nn.Module) -> Strands:
    """As the search finds them: it is the first pass after kernels were chosen for the plain layout."""
    return Strands(laid_out(network, CUTTING, ChooseReads))


def sizes(found: Strands, number: int) -> list[int]:
    """How many channels the atoms of a strand have."""
    return sorted(atom.size for atom in found.atoms if atom.strand == number)


def test_an_atom_is_what_the_same_layers_read() -> None:
    """Of five channels one layer reads the first two, another the last four: one, one and three are read alike."""

    def run(n: Net, x: Tensor) -> dict[str, Tensor]:
        made = n.a(x).relu()
        return {"first": n.first(made[:, :2]), "last": n.last(made[:, 1:])}

    found = strands(Net(run, a=conv(3, 5), first=conv(2, 1), last=conv(4, 1)))
    assert sizes(found, 0) == [1, 1, 3]
    read = [set(layer.sources[found.family[0]]) for layers in found.layers[1:] for layer in layers]
    assert [sum(found.atoms[atom].size for atom in atoms) for atoms in read] == [2, 4]
    assert len(read[0] & read[1]) == 1


@pytest.mark.parametrize(
    ("channels", "expected"),
    [(20, [4, 8, 8]), (2 * CHUNK * PIECES, [2 * CHUNK] * PIECES)],
    ids=["a vector each", "more where there are many"],
)
def test_an_atom_is_no_larger_than_it_need_be(channels: int, expected: list[int]) -> None:
    found = strands(Net(lambda n, x: n.b(n.a(x).relu()), a=conv(3, channels), b=conv(channels, 1)))
    assert sizes(found, 0) == expected


def test_sums_along_which_channels_are_added_are_cut_alike() -> None:
    """a, and what b adds to it, are one strand of two families; so the layers at either end see the same atoms."""

    def run(n: Net, x: Tensor) -> Tensor:
        made = n.a(x)
        return n.c((made + n.b(made.relu())).relu())

    found = strands(Net(run, a=conv(3, 8), b=conv(8, 8), c=conv(8, 2)))
    (stream,) = [strand for strand in found.strands if len(strand.sums) == 2]
    assert len(set(stream.families)) == 2
    assert all(atom.sums == set(stream.sums) for atom in found.atoms if atom.strand == found.strands.index(stream))


def test_layers_at_one_depth_are_a_family_though_two_strands() -> None:
    net = Net(lambda n, x: {"a": n.a(x), "b": n.b(x), "c": n.c(x)}, a=conv(3, 4), b=conv(3, 4), c=conv(3, 4, 3))
    found = strands(net)
    assert len(found.strands) == 3
    a, b, c = found.family
    assert a == b != c  # c is another kind of layer


def test_a_strand_lies_around_those_that_read_it_and_are_read_by_it() -> None:
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


def test_atoms_lie_in_gray_order() -> None:
    """Three layers read every other of seven channels, every other two, the last four: each finds its four in few runs.

    As they are these are 4, 2 and 1 runs; in Gray order (1 3 2 6 7 5 4) they are 2, 1 and 1.
    """

    def run(n: Net, x: Tensor) -> dict[str, Tensor]:
        made = n.a(x).relu()
        each = made.split(1, dim=1)
        chosen = {name: [each[place] for place in range(7) if place + 1 >> bit & 1] for bit, name in enumerate("pqr")}
        return {name: n.get_submodule(name)(torch.cat(parts, dim=1)) for name, parts in chosen.items()}

    found = strands(Net(run, a=conv(3, 7), p=conv(4, 1), q=conv(4, 1), r=conv(4, 1)))
    order = sorted(range(7), key=found.rank.__getitem__)
    runs = []
    for (layer,) in found.layers[1:]:
        read = [atom in layer.sources[found.family[0]] for atom in order]
        runs.append(sum(now and not before for before, now in zip([False, *read], read, strict=False)))
    assert sorted(runs) == [1, 1, 2]
