from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from gatedeploy.passes.lines import gray_place
from gatedeploy.passes.order_channels import OrderChannels
from tests.graph.small import Net, collapsed, conv, laid_out, sums, the
from tests.prices import CUTTING


def places(network: Net, reader: int) -> list[int]:
    """Where the channels that the sum of this number reads lie in the first sum."""
    made = sums(laid_out(network, CUTTING, OrderChannels))
    row_of = {id_: row for row, id_ in enumerate(made[0].output.ids.tolist())}
    return sorted(row_of[id_] for id_ in made[reader].terms[0].reads.ids.tolist())


def test_what_a_layer_reads_lies_side_by_side() -> None:
    """Every second channel is read by one layer, all by the other."""
    network = Net(
        lambda n, x: {"some": n.some(n.a(x)[:, ::2]), "all": n.all(n.a(x))},
        **{"a": conv(3, 8), "some": conv(4, 2), "all": conv(8, 2)},
    )
    found = places(network, 1)
    assert len(found) == 4
    assert (np.diff(found) == 1).all()
    collapsed(network, CUTTING)


def test_what_is_added_lies_in_one_order() -> None:
    def run(n: Net, x: Tensor) -> dict[str, Tensor]:
        first = n.a(x).relu()
        second = n.b(first) + torch.cat([first[:, 4:], first[:, :4]], 1)
        return {"some": n.some(second[:, ::2]), "all": n.all(second)}

    network = Net(run, a=conv(3, 8), b=conv(8, 8), some=conv(4, 2), all=conv(8, 2))
    graph = laid_out(network, CUTTING, OrderChannels)
    (added,) = (term for made in sums(graph) for term in made.terms if term.kind is None)
    assert added.reads.ids[np.argsort(added.rows)].tolist() == the(graph, "relu").output.ids.tolist()
    collapsed(network, CUTTING)


def test_what_several_layers_read_lies_in_few_runs() -> None:
    """Of four channels every second is read by one layer, those around the middle by another."""

    def run(n: Net, x: Tensor) -> dict[str, Tensor]:
        made = n.a(x)
        even, middle = made[:, ::2], made[:, 1:3]
        return {"even": n.last(even), "middle": n.last(middle), "all": n.all(made)}

    network = Net(run, a=conv(3, 4), last=conv(2, 2), all=conv(4, 2))
    for reader in (1, 2):
        first, second = places(network, reader)
        assert second == first + 1
    collapsed(network, CUTTING)


def test_neighbours_in_gray_order_differ_in_one_bit() -> None:
    ordered = sorted(range(1 << 9), key=gray_place)
    assert all((one ^ other).bit_count() == 1 for one, other in pairwise(ordered))
    assert gray_place(1 << 300) == 2**301 - 1


def test_the_picture_keeps_its_order() -> None:
    network = Net(lambda n, x: {"some": n.some(x[:, 1:]), "all": n.all(x)}, some=conv(2, 2), all=conv(3, 2))
    graph = laid_out(network, CUTTING, OrderChannels)
    assert (np.diff(graph.image.ids) == 1).all()
    collapsed(network, CUTTING)
