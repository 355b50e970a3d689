"""Which gates are flipped, on gates whose least sure choices were found by hand."""

import pytest
import torch
from torch import Tensor

import gatedeploy as gd
from gatedeploy.errors import InputError
from gatedeploy.gating.layers import ChannelGate
from gatedeploy.graph.flips import Rounded
from gatedeploy.graph.rounding import rounded_gates
from tests.graph.small import PICTURE, Net, conv, prepared, program_of


def gated(*logits: float, group: int = 1) -> Net:
    """A task's layer and a shared one, and a gate with these α between them."""
    channels = len(logits) * group
    made = gd.ChannelGate(channels, group)
    made.gate_logits.data = torch.tensor(logits, dtype=torch.float64)
    return Net(lambda n, x: n.gate(n.own(x), n.shared(x)), own=conv(3, channels), shared=conv(3, channels), gate=made)


def chosen(net: Net, multiple: int) -> tuple[list[int], tuple[Rounded, ...]]:
    """Which choices leave channels to the task afterwards, and what was told."""
    program, told = rounded_gates(program_of(net), multiple)
    return torch.where(program.weights["gate.gate_logits"] > 0)[0].tolist(), told


@pytest.mark.parametrize(
    ("logits", "multiple", "expected", "flipped"),
    [
        ((0.1, -0.2, 3, -4, 0.05, 2, -0.3, 1), 4, [0, 2, 5, 7], 1),  # 5 of 8: nearer to 4, and 0.05 is the least sure
        ((0.1, -0.2, 3, -4, 0.5, -2, -0.3, 1), 3, [2, 4, 7], 1),  # 4: nearer to 3 than to 6
        ((3, -0.2, -1, -4, 0.05, 2, -0.3, -1), 4, [0, 1, 4, 5], 1),  # 3: nearer to 4
        ((3, 4, -0.1, -0.2, -5, -6, -7, -8), 4, [0, 1, 2, 3], 2),  # 2: as far from 0 as from 4; 0.3 is less than 7
        ((0.1, 0.2, -3, -3, -5, -6, -7, -8), 4, [], 2),  # the same the other way
        ((3, 4, 0.0, -3, -5, -6), 3, [0, 1, 2], 1),  # at 0 a channel is shared, and nothing is less sure
        ((3, 4, 5, 6, -0.1), 3, [0, 1, 2, 3, 4], 1),  # all 5 fit as well as 3, and flip what is less sure
    ],
)
def test_the_least_sure_are_flipped(
    logits: tuple[float, ...], multiple: int, expected: list[int], flipped: int
) -> None:
    before = sum(each > 0 for each in logits)
    assert chosen(gated(*logits), multiple) == (
        expected,
        (Rounded("gate.gate_logits", before, len(expected), flipped, len(logits)),),
    )


def test_groups_are_flipped_whole() -> None:
    """Three groups of four channels are 12: one more or one less makes 16 or 8, and the third of them is unsure."""
    kept, told = chosen(gated(3, -4, 0.5, 2, -1, group=4), 8)
    assert kept == [0, 3]
    assert told == (Rounded("gate.gate_logits", 12, 8, 1, 5),)


@pytest.mark.parametrize("logits", [(1, 2, -3, -4), (-1, -2, -3), (1, 2, 3)], ids=["fits", "none", "all"])
def test_what_fits_stays(logits: tuple[float, ...]) -> None:
    net = gated(*logits)
    program, told = rounded_gates(program_of(net), 2)
    assert not told
    assert torch.equal(program.weights["gate.gate_logits"], net.gate.gate_logits)


def test_a_gate_that_is_used_twice_is_flipped_once() -> None:
    def twice(n: Net, x: Tensor) -> Tensor:
        return n.gate(n.gate(n.own(x), n.shared(x)), n.other(x))

    net = gated(1, 2, 0.1, -3).having(other=conv(3, 4))
    net.run = twice
    kept, told = chosen(net, 2)
    assert kept == [0, 1]
    assert len(told) == 1


def test_a_gate_over_a_whole_feature_stays() -> None:
    net = gated(1, 2, 3).having(gate=gd.TensorGate())
    assert not rounded_gates(program_of(net), 2)[1]


def test_collapse_computes_the_network_whose_gates_are_flipped() -> None:
    net = gated(0.1, -0.2, 3, -4, 0.05, 2, -0.3, 1)
    prepared(net)
    thin = gd.collapse(net, example_input=PICTURE, round_gates=4)
    assert thin.report is not None
    assert [gate.after for gate in thin.report.rounded] == [4]
    assert [site.specific for site in thin.report.sites] == [{"gate": 4}]
    assert isinstance(net.gate, ChannelGate)
    before = net(PICTURE)["y"]
    net.gate.choose([place in (0, 2, 5, 7) for place in range(8)])
    after = net(PICTURE)["y"]
    assert torch.allclose(thin(PICTURE)["y"], after, rtol=0, atol=1e-12)
    assert not torch.allclose(before, after)


@pytest.mark.parametrize("multiple", [1, 0, -8, 2.5])
def test_a_multiple_that_is_none(multiple: int) -> None:
    with pytest.raises(InputError, match=r"at least 2, such as 8; got"):
        gd.collapse(prepared(gated(1, -1)), example_input=PICTURE, round_gates=multiple)
