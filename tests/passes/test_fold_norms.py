import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gatedeploy as gd
from gatedeploy.graph.build import channel_graph
from gatedeploy.graph.channels import ChannelGraph
from gatedeploy.passes.fold_norms import FoldNorms
from gatedeploy.passes.prune_channels import PruneChannels
from tests.graph.small import (
    PICTURE,
    Net,
    all_of,
    calls,
    collapsed,
    conv,
    gate,
    lowered,
    norm,
    operators,
    prepared,
    program_of,
    the,
    weight,
)


def folded(network: nn.Module) -> ChannelGraph:
    return lowered(network, FoldNorms)


def test_scale_and_shift_by_hand() -> None:
    """γ = 3, σ² + ε = 4, μ = 5, β = 7: y = 3/2 · (wx + b − 5) + 7."""
    network = prepared(Net(lambda n, x: n.norm(n.a(x)), a=conv(3, 1), norm=norm(1, eps=0.0)))
    assert isinstance(network, Net)
    for role, number in [("weight", 3), ("running_var", 4), ("running_mean", 5), ("bias", 7)]:
        getattr(network.norm, role).data.fill_(number)
    thin = gd.collapse(network, example_input=PICTURE).program.weights
    assert torch.equal(thin["a.weight"], 1.5 * network.a.weight)
    assert torch.allclose(thin["a.bias"], 1.5 * (network.a.bias - 5) + 7)


@pytest.mark.parametrize(
    "network",
    [
        Net(lambda n, x: n.norm(n.a(x)), a=conv(), norm=norm()),
        Net(lambda n, x: n.norm(n.a(x)), a=conv(bias=False), norm=norm()),
        Net(lambda n, x: n.norm(n.a(x)), a=conv(), norm=norm(affine=False)),
        Net(lambda n, x: n.norm(n.a(x)), a=nn.ConvTranspose2d(3, 4, 2, 2), norm=norm()),
        Net(lambda n, x: n.norm(n.a(x)), a=conv(3, 3, 3, groups=3), norm=norm(3)),
        Net(lambda n, x: n.norm(n.a(x.flatten(2))), a=nn.Conv1d(3, 3, 3, groups=3, bias=False), norm=nn.BatchNorm1d(3)),
        Net(lambda n, x: n.norm(n.a(x.flatten(2))), a=nn.Conv1d(3, 4, 3), norm=nn.BatchNorm1d(4)),
        Net(lambda n, x: n.norm(n.a(x.unsqueeze(2))), a=nn.Conv3d(3, 4, 1), norm=nn.BatchNorm3d(4)),
        Net(lambda n, x: n.norm(n.a(x.mean((2, 3)))), a=nn.Linear(3, 4), norm=nn.BatchNorm1d(4)),
        Net(lambda n, x: n.norm(n.a(x.flatten(1))), a=nn.Linear(192, 4), norm=nn.BatchNorm1d(4)),
    ],
    ids="conv|without bias|without affine|transposed|depthwise|depthwise 1d|1d|3d|linear|linear on blocks".split("|"),
)
def test_a_norm_behind_a_layer_goes(network: Net) -> None:  # 1, 2, 3
    assert "batch_norm" not in operators(folded(network))
    assert "batch_norm" not in calls(collapsed(network).program)


def test_norm_behind_norm_goes_too() -> None:  # 1, 2, 3
    network = Net(lambda n, x: n.two(n.one(n.a(x))), a=conv(), one=norm(), two=norm(eps=0.1))
    assert operators(folded(network)) == ["conv2d"]
    collapsed(network)


def test_what_others_read_of_a_folded_norm_is_not_scaled_again() -> None:  # 3
    def run(n: Net, x: Tensor) -> Tensor:
        one = n.one(n.a(x))
        return torch.relu(n.two(one)) + one

    network = Net(run, a=conv(), one=norm(), two=norm())
    assert operators(folded(network)).count("batch_norm") == 1
    collapsed(network)


def test_a_layer_of_constants_gets_a_constant_bias() -> None:
    network = Net(lambda n, x: n.norm(n.a(x)), a=conv(bias=False), norm=norm())
    assert collapsed(network).program.trainable == {"a.weight", "a.bias"}
    constant = network.a.weight.detach()
    del network.a.weight
    network.a.register_buffer("weight", constant)
    assert collapsed(network).program.trainable == frozenset()


def test_norms_of_equal_scale_and_other_shift_behind_one_layer() -> None:
    network = Net(lambda n, x: n.one(n.a(x)) + n.two(n.a(x * x)), a=conv(bias=False), one=norm(), two=norm())
    for role in ("weight", "running_mean", "running_var"):
        getattr(prepared(network).two, role).data.copy_(getattr(network.one, role))
    network.two.bias.data.copy_(network.one.bias + 1)
    collapsed(network)


def test_statistics_that_were_gated_are_constants_still() -> None:  # 1
    def run(n: Net, x: Tensor) -> Tensor:
        return F.batch_norm(n.a(x), n.norm.running_mean, n.norm.running_var, n.gate(n.p, n.q), n.norm.bias)

    network = Net(run, a=conv(), norm=norm(), gate=gate(1, 0, 0, 1, axis=0), p=weight(4), q=weight(4))
    assert "batch_norm" not in operators(folded(network))
    collapsed(network)


@pytest.mark.parametrize("computed", ["weight", "bias", "mean"])
def test_statistics_that_are_computed_do_not_fold(computed: str) -> None:  # 1
    def run(n: Net, x: Tensor) -> Tensor:
        own = {"weight": n.norm.weight, "bias": n.norm.bias, "mean": n.norm.running_mean}
        own[computed] = own[computed] + 1
        return F.batch_norm(n.a(x), own["mean"], n.norm.running_var, own["weight"], own["bias"])

    network = Net(run, a=conv(), norm=norm())
    assert "batch_norm" in operators(folded(network))
    collapsed(network)


@pytest.mark.parametrize(
    "network",
    [
        Net(lambda n, x: n.norm(x), norm=norm(3)),
        Net(lambda n, x: n.norm(torch.relu(n.a(x))), a=conv(), norm=norm()),
        Net(lambda n, x: n.norm(n.a(x).softmax(1)), a=conv(), norm=norm()),
    ],
    ids=["of the picture", "behind an activation", "behind a barrier"],
)
def test_a_norm_behind_anything_else_stays(network: Net) -> None:  # 2
    assert "batch_norm" in operators(folded(network))
    collapsed(network)


def test_a_second_reader_keeps_the_norm() -> None:  # 3
    def run(n: Net, x: Tensor) -> dict[str, Tensor]:
        feature = n.a(x)
        return {"normed": n.norm(feature), "plain": torch.relu(feature)}

    network = Net(run, a=conv(), norm=norm())
    assert operators(folded(network)) == ["conv2d", "batch_norm", "relu"]
    collapsed(network)


def test_an_output_is_a_reader() -> None:  # 3
    def run(n: Net, x: Tensor) -> dict[str, Tensor]:
        feature = n.a(x)
        return {"normed": n.norm(feature), "plain": feature}

    assert "batch_norm" in operators(folded(Net(run, a=conv(), norm=norm())))


def test_two_norms_are_two_readers() -> None:  # 3
    def run(n: Net, x: Tensor) -> dict[str, Tensor]:
        feature = n.a(x)
        return {"one": n.one(feature), "two": n.two(feature)}

    network = Net(run, a=conv(), one=norm(), two=norm())
    assert operators(folded(network)).count("batch_norm") == 2
    collapsed(network)


def test_a_norm_that_reads_a_channel_twice_is_two_readers() -> None:  # 3
    def run(n: Net, x: Tensor) -> Tensor:
        feature = n.a(x)
        return n.norm(torch.cat([feature, feature[:, :1]], 1))

    network = Net(run, a=conv(3, 3), norm=norm(4))
    assert the(folded(network), "batch_norm").output.ids.shape == (2,)
    collapsed(network)


def test_channels_fold_one_by_one() -> None:
    """Somebody else reads channels 1 and 2 of the layer, so they alone are normed at run time."""

    def run(n: Net, x: Tensor) -> dict[str, Tensor]:
        feature = n.a(x)
        return {"normed": torch.relu(n.norm(feature)), "plain": feature[:, 1:3]}

    network = Net(run, a=conv(), norm=norm())
    assert the(folded(network), "batch_norm").output.ids.shape == (2,)
    collapsed(network)


def test_a_norm_over_layers_of_two_branches_goes_into_both() -> None:
    """Behind a gate a feature consists of rows of two layers; the norm that both read is folded into each."""
    parts = {"own": conv(), "shared": conv(), "gate": gate(1, 0, 0, 1), "norm": norm()}
    network = Net(lambda n, x: n.norm(n.gate(n.own(x), n.shared(x))), **parts)
    assert operators(folded(network)) == ["conv2d", "conv2d"]
    collapsed(network)


def test_a_shared_row_with_two_tasks_norms_stays_plain() -> None:
    def run(n: Net, x: Tensor) -> dict[str, Tensor]:
        shared = n.shared(x)
        return {"one": n.norm1(n.gate(n.own(x), shared)), "two": n.norm2(shared)}

    parts = {"own": conv(), "shared": conv(), "gate": gate(1, 0, 1, 1), "norm1": norm(), "norm2": norm()}
    network = Net(run, **parts)
    # Row 1 of the shared layer has two norms; the other three rows have one each.
    assert [len(operation.output.ids) for operation in all_of(folded(network), "batch_norm")] == [1, 1]
    collapsed(network)


def test_depthwise_rows_of_two_branches_take_the_norm_of_each() -> None:
    """What the tasks share is normed at run time, for it has two norms; what is theirs is folded."""

    def run(n: Net, x: Tensor) -> dict[str, Tensor]:
        shared = n.shared(x)
        return {"one": n.norm1(n.layer(n.gate1(n.own(x), shared))), "two": n.norm2(n.layer(n.gate2(n.own(x), shared)))}

    parts = {"own": conv(), "shared": conv(), "layer": conv(4, 4, 3, groups=4), "norm1": norm(), "norm2": norm()}
    network = Net(run, **parts, gate1=gate(1, 0, 0, 1), gate2=gate(0, 0, 1, 1))
    # Channels 1 and 3 are the same for both.
    assert [len(operation.output.ids) for operation in all_of(folded(network), "batch_norm")] == [2, 2]
    collapsed(network)


def test_a_depthwise_layer_may_read_a_channel_twice() -> None:
    def run(n: Net, x: Tensor) -> Tensor:
        feature = n.a(x)
        return n.norm(n.layer(torch.cat([feature, feature[:, 1:]], 1)))

    network = Net(run, a=conv(), layer=conv(7, 7, 3, groups=7), norm=norm(7))
    assert operators(folded(network)) == ["conv2d", "conv2d"]
    collapsed(network)


def test_a_layer_that_is_called_twice_takes_one_norm_each_time() -> None:
    network = Net(lambda n, x: n.one(n.a(x)) + n.two(n.a(x * 2)), a=conv(), one=norm(), two=norm())
    assert "batch_norm" not in operators(folded(network))
    collapsed(network)


def test_a_norm_of_constants_stays() -> None:
    network = Net(lambda n, x: n.a(x) * n.norm(n.p), a=conv(), norm=norm(), p=weight(1, 4, 1, 1))
    assert "batch_norm" in operators(folded(network))


def test_it_ensures_that_nothing_foldable_is_left() -> None:
    graph = channel_graph(program_of(Net(lambda n, x: n.norm(n.a(x)), a=conv(), norm=norm())))
    PruneChannels().run(graph)
    assert not FoldNorms().ensures(graph)
    FoldNorms().run(graph)
    assert FoldNorms().ensures(graph)
