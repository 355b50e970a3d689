from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gatedeploy.graph.build import channel_graph
from gatedeploy.graph.channels import ChannelGraph
from gatedeploy.passes.prune_channels import PruneChannels
from gatedeploy.passes.resolve_gates import ResolveGates
from gatedeploy.passes.share_duplicates import ShareDuplicates
from gatedeploy.passes.unite_channelwise import UniteChannelwise
from tests.graph.small import Net, all_of, collapsed, conv, gate, lowered, operators, program_of, weight


def united(network: nn.Module) -> ChannelGraph:
    return lowered(network, UniteChannelwise)


def gated(act: Any) -> Net:
    """Two tasks with three and one channels of their own, and what each does with its feature."""

    def run(n: Net, x: Tensor) -> dict[str, Tensor]:
        shared = n.shared(x)
        return {"one": n.act(n, n.gate1(n.own1(x), shared)), "two": n.act(n, n.gate2(n.own2(x), shared))}

    parts = {"own1": conv(), "own2": conv(), "shared": conv(), "gate1": gate(1, 1, 1, 0), "gate2": gate(0, 1, 0, 0)}
    return Net(run, **parts).having(act=act)


@pytest.mark.parametrize(
    ("act", "name"),
    [
        (lambda n, y: torch.relu(y), "relu"),
        (lambda n, y: F.avg_pool2d(y, 2), "avg_pool2d"),
        (lambda n, y: y.clamp(-1, 1), "clamp"),
        (lambda n, y: y.flatten(1), "flatten"),
        (lambda n, y: y.permute(0, 2, 3, 1), "permute"),
        (lambda n, y: y.mean((2, 3)), "mean"),
    ],
)
def test_each_tensor_is_gone_through_once(act: Any, name: str) -> None:  # 1, 2
    """Of the shared tensor the first task reads channel 3, the second 0, 2 and 3; the others are their own."""
    widths = [len(operation.output.ids) for operation in all_of(united(gated(act)), name)]
    assert sorted(widths) == [1, 3, 3]


def test_chains_are_followed_tensor_by_tensor() -> None:  # 1, 2
    graph = united(gated(lambda n, y: F.max_pool2d(torch.relu(y), 2)))
    assert [len(operation.output.ids) for operation in all_of(graph, "max_pool2d")] == [3, 3, 1]


def test_a_sum_of_two_values_stays_as_it_is() -> None:  # 1
    graph = united(gated(lambda n, y: y + torch.relu(y)))
    assert sorted(len(operation.output.ids) for operation in all_of(graph, "add")) == [3, 4]


def test_numbers_that_differ_are_not_united() -> None:  # 2
    def run(n: Net, x: Tensor) -> dict[str, Tensor]:
        y = n.a(x)
        return {"one": y * n.p, "two": y * n.q}

    network = Net(run, a=conv(), p=nn.Parameter(torch.tensor(2.0)), q=nn.Parameter(torch.tensor(3.0)))
    assert operators(united(network)).count("mul") == 2
    collapsed(network)


def test_an_operator_with_weights_stays_as_it_is() -> None:  # 1
    network = gated(lambda n, y: y * n.scale)
    network.scale = weight(4, 1, 1)
    # The second task's channels 0, 2 and 3 are the shared tensor's; channel 3 the first task scales likewise.
    assert [len(operation.output.ids) for operation in all_of(united(network), "mul")] == [4, 3]


def test_a_number_of_the_network_is_no_obstacle() -> None:  # 1
    network = gated(lambda n, y: y * n.scale)
    network.scale = weight()
    assert sorted(len(operation.output.ids) for operation in all_of(united(network), "mul")) == [1, 3, 3]


@pytest.mark.parametrize("form", ["mul", "sub", "blend of both"])
def test_a_number_may_stand_first(form: str) -> None:  # 1
    acts = {
        "mul": lambda n, y: n.scale * y,
        "sub": lambda n, y: n.scale - y,
        "blend of both": lambda n, y: torch.lerp(n.scale, y, 0.5),
    }
    network = gated(acts[form])
    network.scale = weight()
    collapsed(network)


def test_other_arguments_are_not_united() -> None:  # 2
    network = Net(lambda n, x: {"one": n.a(x).clamp(0, 1), "two": n.a(x).clamp(0, 2)}, a=conv())
    assert operators(united(network)) == ["conv2d", "clamp", "clamp"]


def test_what_is_read_along_another_axis_is_not_united() -> None:  # 2
    network = Net(lambda n, x: {"one": torch.relu(n.a(x)), "two": torch.relu(n.a(x).transpose(1, 2))}, a=conv())
    assert operators(united(network)).count("relu") == 2
    collapsed(network)


def test_results_of_one_operator_are_several_tensors() -> None:  # 2
    def run(n: Net, x: Tensor) -> dict[str, Tensor]:
        upper, lower = n.a(x).split([3, 5], dim=2)
        return {"one": torch.relu(upper), "two": torch.relu(lower)}

    collapsed(Net(run, a=conv()))


def test_the_picture_and_a_weight_are_two_tensors() -> None:  # 2
    network = Net(lambda n, x: torch.relu(x) * torch.relu(n.gate(n.p, n.q)), p=weight(1, 3, 1, 1), q=weight(1, 3, 1, 1))
    network.gate = gate(1, 0, 1)
    collapsed(network)


def test_it_ensures_that_each_call_reads_one_tensor() -> None:
    graph = channel_graph(program_of(gated(lambda n, y: torch.relu(y))))
    for step in (ResolveGates(), PruneChannels(), ShareDuplicates()):
        step.run(graph)
    assert not UniteChannelwise().ensures(graph)
    UniteChannelwise().run(graph)
    assert UniteChannelwise().ensures(graph)
