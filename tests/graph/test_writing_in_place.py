"""Networks that write in place are captured as what they compute, or refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gatedeploy as gd
from tests.graph.small import Net, assert_captured, calls, conv, norm, program_of, weight


def rectified_layer(n: Net, x: Tensor) -> Tensor:
    return n.b(n.a(x).relu_())


def read_before_and_after(n: Net, x: Tensor) -> dict[str, Tensor]:
    feature = n.a(x)
    before = feature * 2
    feature.add_(1)
    return {"y": n.b(feature) + before, "feature": feature}


def residual_in_place(n: Net, x: Tensor) -> Tensor:
    feature = n.a(x)
    out = n.b(feature)
    out += feature
    return F.relu(out, inplace=True)


def chain_in_place(n: Net, x: Tensor) -> Tensor:
    return n.a(x).mul_(2).add_(1).clamp_(-1, 1).sigmoid_()


def another_name(n: Net, x: Tensor) -> Tensor:
    feature = n.a(x)
    same = feature
    same.relu_()
    return n.b(feature)


def through_a_view(n: Net, x: Tensor) -> Tensor:
    feature = n.a(x)
    feature.view(-1, 4, 64).relu_()
    return n.b(feature)


def through_a_slice(n: Net, x: Tensor) -> Tensor:
    feature = n.a(x)
    feature[:, 1:3] *= 2
    return n.b(feature)


def into_a_slice(n: Net, x: Tensor) -> Tensor:
    feature = n.a(x)
    feature[:, :2] = x[:, 1:]
    return n.b(feature)


def through_a_transposed_view(n: Net, x: Tensor) -> Tensor:
    feature = n.a(x)
    feature.permute(0, 2, 3, 1).add_(n.bias)
    return n.b(feature)


def of_a_view_that_nobody_else_sees(n: Net, x: Tensor) -> Tensor:
    return n.b(n.a(x).flatten(2).relu_().view(-1, 4, 8, 8))


def through_a_cast_that_casts_nothing(n: Net, x: Tensor) -> Tensor:
    feature = n.a(x)
    feature.to(x.dtype).relu_()
    return n.b(feature)


def through_a_type_that_is_its_own(n: Net, x: Tensor) -> Tensor:
    feature = n.a(x)
    feature.type_as(x).relu_()
    return n.b(feature)


def through_a_contiguous(n: Net, x: Tensor) -> Tensor:
    feature = n.a(x)
    feature.contiguous().relu_()
    return n.b(feature)


def of_a_sum_of_weights(n: Net, x: Tensor) -> Tensor:
    return n.a(x) * (n.bias + 1).relu_().view(4, 1, 1)


def with_numbers_of_the_network(n: Net, x: Tensor) -> Tensor:
    return n.b(n.a(x).sub_(n.bias.view(4, 1, 1)).div_(2))


def filled(n: Net, x: Tensor) -> Tensor:
    mask = torch.zeros_like(x[:, :1])
    mask[:, :, 2:5] = 1
    return n.b(n.a(x) * mask)


def masked(n: Net, x: Tensor) -> Tensor:
    feature = n.a(x)
    feature.masked_fill_(x[:, :1] > 0, 0.0)
    return n.b(feature)


IN_PLACE = [
    *(rectified_layer, read_before_and_after, residual_in_place, chain_in_place, another_name, through_a_view),
    *(through_a_slice, into_a_slice, through_a_transposed_view, of_a_view_that_nobody_else_sees),
    *(through_a_cast_that_casts_nothing, through_a_contiguous, through_a_type_that_is_its_own),
    *(of_a_sum_of_weights, with_numbers_of_the_network, filled, masked),
]


@pytest.mark.parametrize("run", IN_PLACE, ids=lambda run: run.__name__)
def test_writing_in_place_is_understood(run: Callable[[Any, Tensor], Any]) -> None:
    assert_captured(Net(run, a=conv(), b=conv(4, 4), bias=weight(4)))


def test_a_plain_network_of_in_place_activations_is_read_without_rewriting_it() -> None:
    """Rewriting the whole graph takes longer than the export itself, and batch norms would come apart."""
    network = nn.Sequential(conv(), norm(), nn.ReLU(inplace=True), nn.Dropout(), conv(4, 2), nn.Hardtanh(inplace=True))
    names = calls(program_of(Net(lambda n, x: n.layers(x), layers=network)))
    assert names == ["conv2d", "batch_norm", "relu", "dropout", "conv2d", "hardtanh"]


def through_dropout(n: Net, x: Tensor) -> Tensor:
    feature = n.a(x)
    F.dropout(feature, 0.5, training=False).relu_()
    return n.b(feature)


def through_an_einsum(n: Net, x: Tensor) -> Tensor:
    feature = n.a(x)
    torch.einsum("nchw->nhwc", feature).relu_()
    return n.b(feature)


def into_the_picture(n: Net, x: Tensor) -> Tensor:
    x.mul_(2)
    return n.b(n.a(x))


def into_a_buffer(n: Net, x: Tensor) -> Tensor:
    n.calls.add_(1)
    return n.b(n.a(x))


@pytest.mark.parametrize(("run", "operator"), [(through_dropout, "dropout"), (through_an_einsum, "einsum")])
def test_writing_through_what_conceals_that_it_is_a_view_is_refused(
    run: Callable[[Any, Tensor], Any], operator: str
) -> None:
    message = f"relu_ writes in place into memory that {operator} has in common with its input, and both names are read"
    with pytest.raises(gd.InputError, match=message):
        program_of(Net(run, a=conv(), b=conv(4, 4)))


def dropout_first(n: Net, x: Tensor) -> Tensor:
    return n.b(F.dropout(n.a(x), 0.5, training=False).relu_())


@pytest.mark.parametrize("run", [dropout_first, into_the_picture, into_a_buffer])
def test_writing_that_nobody_else_sees_is_understood(run: Callable[[Any, Tensor], Any]) -> None:
    assert_captured(Net(run, a=conv(), b=conv(4, 4), calls=torch.zeros((), dtype=torch.int64)))


def test_a_network_that_remembers_is_refused() -> None:
    network = Net(lambda n, x: n.a(x) * n.calls.add_(1), a=conv(), calls=torch.zeros(()))
    with pytest.raises(gd.InputError, match="it remembers: what it writes into 'calls' changes its next predictions"):
        program_of(network)
