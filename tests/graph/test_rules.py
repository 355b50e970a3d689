"""Every rule of the table: what it takes apart computes the same afterwards, and what it must not it leaves whole.

Each case is an operator between a layer and a gate. The gate takes three of eight channels, so of an operator that
goes channel by channel three rows of the layer are left, of any other all eight. Height, width and channels are all
eight, so that a rule which confuses axes is caught.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gatedeploy as gd
from gatedeploy.graph.capture import capture
from gatedeploy.graph.rules import RULES
from gatedeploy.program import Program
from tests.graph.cases import CALCULATING, Case, apart, whole
from tests.graph.head_cases import HEADS
from tests.graph.moving_cases import MOVING
from tests.graph.small import PICTURE, UNSEEN, Net, assert_equal, calls, collapsed, conv, gate, prepared, shape

CASES = {**CALCULATING, **MOVING, **HEADS}
OWN = [1, 4, 6]
"""The channels of the task's own feature that the gate takes."""


class Between(nn.Module):
    """Two layers, the operator behind each, a gate."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.own, self.shared = conv(3, 8), conv(3, 8)
        self.gate = gd.ChannelGate(8, axis=case.axis)
        self.gate.choose([channel in OWN for channel in range(8)])
        self.parts = Net(lambda n, x: x, **case.parts())
        self.operator = case.operator

    def forward(self, x: Tensor) -> Tensor:
        own, shared = (self.operator(self.parts, layer(x)) for layer in (self.own, self.shared))
        return self.gate(own, shared)


class Cases(nn.Module):
    """Several cases side by side, for a capture costs more than an operator."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__()
        self.names = names
        self.cases = nn.ModuleList(Between(CASES[name]) for name in names)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {name: case(x) for name, case in zip(self.names, self.cases, strict=True)}


TOGETHER = 20


@cache
def captured(group: int) -> tuple[Cases, Program]:
    torch.manual_seed(group)
    network = Cases(tuple(CASES)[group * TOGETHER : (group + 1) * TOGETHER])
    prepared(network)
    return network, capture(network, PICTURE)


@cache
def collapsed_group(group: int) -> tuple[gd.Collapsed, list[tuple[dict[str, Tensor], dict[str, Tensor]]]]:
    """The smallest collapsed cases; what they, others by price and the gated ones say of pictures never seen."""
    network, program = captured(group)
    thin, by_price = gd.collapse(program, target=None), gd.collapse(program)
    with torch.no_grad():
        return thin, [
            (each(pictures), network(pictures)) for each in (thin, by_price) for pictures in (UNSEEN, UNSEEN[:1])
        ]


@pytest.mark.parametrize("name", CASES)
def test_an_operator_is_taken_apart_where_it_may_be(name: str) -> None:
    group, number = divmod(list(CASES).index(name), TOGETHER)
    thin, computed = collapsed_group(group)
    for got, expected in computed:
        assert_equal(got[name], expected[name])
    assert thin.program.weights[f"cases.{number}.own.weight"].shape[0] == CASES[name].kept


def test_every_rule_of_the_table_was_tried() -> None:
    groups = range(-(-len(CASES) // TOGETHER))
    nodes = [node for group in groups for node in captured(group)[1].graph.nodes]
    called = {str(getattr(node.target, "overloadpacket", None)) for node in nodes}
    assert {str(packet) for packet in RULES} - called == set()


@pytest.mark.parametrize(
    "case",
    [
        apart(lambda n, y: F.scaled_dot_product_attention(y, y.abs(), y * 2)),
        whole(lambda n, y: F.rrelu(y)),
        whole(lambda n, y: n.gru(y[:, :, 0])[0], gru=lambda: nn.GRU(8, 8, batch_first=True)),
    ],
    ids=["attention", "rrelu", "gru"],
)
def test_operators_that_could_draw_numbers_and_do_not(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CASES, "quiet", case)
    thin = collapsed(Cases(("quiet",)))
    assert thin.program.weights["cases.0.own.weight"].shape[0] == case.kept


def test_a_slice_of_everything_is_no_operation() -> None:
    """`x[:, 1:3]` is exported as two slices, the first of the whole batch."""
    thin = collapsed(Net(lambda n, x: n.b(n.a(x)[:, 1:3]), a=conv(), b=conv(2)))
    assert calls(thin.program) == ["conv2d", "conv2d"]


def test_a_feature_may_have_no_channels() -> None:
    collapsed(Net(lambda n, x: {"none": n.a(x)[:, 4:], "all": n.a(x)}, a=conv()))


def test_channels_that_are_repeated_for_each_picture_are_a_barrier() -> None:
    network = Net(lambda n, x: n.gate(n.a(x), n.b(x)).permute(2, 1, 0, 3).flatten(1, 2), a=conv(), b=conv())
    collapsed(network.having(gate=gate(1, 0, 0, 1)))


def test_a_gate_of_a_whole_tensor_follows_its_channels() -> None:
    def run(n: Net, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        return n.gate(n.a(tokens), n.b(tokens))[..., 1:]

    network = Net(run, a=nn.Linear(3, 4), b=nn.Linear(3, 4), gate=gd.TensorGate())
    assert shape(collapsed(network), "a.weight") == (3, 3)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (torch.rand_like, "draws random numbers when it is evaluated .rand_like: aten.rand_like.default"),
        (torch.bernoulli, "only deterministic networks can be collapsed"),
        (F.dropout, "dropout drops out in evaluation mode; only deterministic networks"),
        (lambda y: y + torch.empty_like(y).normal_(), "draws random numbers"),
        (
            nn.BatchNorm2d(3, track_running_stats=False),
            r"uses the statistics of the batch .*\(track_running_stats=False",
        ),
    ],
    ids=["rand_like", "bernoulli", "dropout", "normal_", "batch statistics"],
)
def test_what_is_not_deterministic_is_refused(act: Callable[[Tensor], Tensor], message: str) -> None:
    network = Net(lambda n, x: act(x.sigmoid())).having(act=act)
    with pytest.raises(gd.InputError, match=message):
        gd.collapse(network, example_input=PICTURE)
