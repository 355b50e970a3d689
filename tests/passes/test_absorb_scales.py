import numpy as np
import pytest
import torch
from torch import Tensor

from gatedeploy.passes.absorb_scales import LARGEST, AbsorbScales
from tests.graph.small import Net, calls, collapsed, conv, gate, laid_out, mix
from tests.prices import CUTTING


def mixed(n: Net, x: Tensor) -> dict[str, Tensor]:
    """Two tasks; of four channels the first is the first task's own, the others are shared."""
    shared = n.act(n.shared(x))
    own = n.act(n.own(x))
    first = n.gate(own, shared)
    return {"first": n.head(first), "y": n.last(n.mix(first, shared))}


def network(activation: object, *logits: list[float]) -> Net:
    parts = {"shared": conv(), "own": conv(), "gate": gate(1, 0, 0, 0), "head": conv(4, 2), "last": conv(4, 2)}
    betas = logits or ([0.0] * 4, [1.0] * 4)
    return Net(mixed, **parts, mix=mix(*betas)).having(act=activation)


def test_the_shared_share_of_a_mix_goes_into_the_layer_that_makes_it() -> None:  # 1, 2
    net = network(torch.relu)
    graph = laid_out(net, CUTTING, AbsorbScales)
    assert graph.scales is not None
    share = 1 / (1 + np.exp(-1))
    scales = graph.scales[graph.scales != 1].tolist()
    assert scales  # the mixed channel, and what it is made of
    ratios = [one / other for one in (1.0, *scales) for other in (1.0, *scales)]
    assert any(ratio == pytest.approx(share) for ratio in ratios)
    assert "mul" not in calls(collapsed(net, CUTTING).program)


def test_an_activation_that_bends_with_the_scale_keeps_it_out() -> None:  # 1
    net = network(torch.sigmoid)
    graph = laid_out(net, CUTTING, AbsorbScales)
    assert graph.scales is not None
    made = {id_ for operation in graph.operations if "sigmoid" in str(operation.target) for id_ in operation.output.ids}
    assert all(graph.scales[id_] == 1 for id_ in made)
    collapsed(net, CUTTING)


def test_outputs_are_not_scaled() -> None:  # 2
    net = Net(lambda n, x: mixed(n, x) | {"z": n.act(n.shared(x))})
    for name, part in network(torch.relu).named_children():
        setattr(net, name, part)
    net.having(act=torch.relu)
    graph = laid_out(net, CUTTING, AbsorbScales)
    assert graph.scales is not None
    assert all((graph.scales[value.ids] == 1).all() for value in graph.output_values())
    collapsed(net, CUTTING)


@pytest.mark.parametrize(("beta", "legal"), [(5.0, True), (20.0, False)])
def test_no_channel_becomes_too_small(beta: float, legal: bool) -> None:  # 3
    """The shared share is e^-β / (1 + e^-β)."""
    net = network(torch.relu, [beta] * 4, [0.0] * 4)
    graph = laid_out(net, CUTTING, AbsorbScales)
    assert graph.scales is not None
    assert (np.abs(np.log2(graph.scales)) <= np.log2(LARGEST)).all()
    scales = np.append(graph.scales, 1.0)
    share = np.exp(-beta) / (1 + np.exp(-beta))
    absorbed = any(one / other == pytest.approx(share) for one in scales for other in scales)
    assert absorbed == legal
    collapsed(net, CUTTING)
