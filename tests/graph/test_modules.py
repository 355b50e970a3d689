from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

import gatedeploy as gd
from gatedeploy.graph.modules import network
from tests.graph.small import (
    PICTURE,
    UNSEEN,
    Net,
    assert_equal,
    collapsed,
    conv,
    gate,
    norm,
    prepared,
    program_of,
    weight,
)


def rebuilt(plain: nn.Module) -> fx.GraphModule:
    """The network of the program of `plain`, found to compute the same."""
    made = network(program_of(plain))
    for pictures in (UNSEEN, UNSEEN[:1]):
        with torch.no_grad():
            assert_equal(made(pictures), plain(pictures))
    return made


LAYERS: dict[str, tuple[Callable[[], nn.Module], Callable[[Tensor], Tensor]]] = {
    "conv1d": (lambda: nn.Conv1d(3, 4, 3, 2, 1, 2), lambda x: x.flatten(2)),
    "conv2d": (lambda: conv(3, 4, (3, 1), stride=(2, 1), padding=(1, 0), bias=False), lambda x: x),
    "conv2d same": (lambda: conv(3, 4, 3, padding="same", dilation=2), lambda x: x),
    "conv2d grouped": (lambda: conv(3, 6, 3, groups=3), lambda x: x),
    "conv3d": (lambda: nn.Conv3d(3, 4, (1, 3, 3), padding=(0, 1, 1)), lambda x: x.unsqueeze(2)),
    "linear": (lambda: nn.Linear(8, 4), lambda x: x),
    "linear without bias": (lambda: nn.Linear(3, 4, bias=False), lambda x: x.mean((2, 3))),
    "batch norm of vectors": (lambda: nn.BatchNorm1d(3, eps=0.1), lambda x: x.mean((2, 3))),
    "batch norm of tokens": (lambda: nn.BatchNorm1d(3, momentum=0.3), lambda x: x.flatten(2)),
    "batch norm": (lambda: norm(3), lambda x: x),
    "batch norm of volumes": (lambda: nn.BatchNorm3d(3), lambda x: x.unsqueeze(2)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_are_modules_of_their_kind_with_their_names_and_settings(name: str) -> None:
    make, reshaped = LAYERS[name]
    layers = nn.Sequential(nn.Identity(), make())
    plain = Net(lambda n, x: n.block[1](reshaped(x)), block=layers)
    module, original = rebuilt(plain).get_submodule("block.1"), layers[1]
    assert type(module) is type(original)
    assert module.extra_repr() == original.extra_repr()
    assert [name for name, _ in module.named_parameters()] == [name for name, _ in original.named_parameters()]


def test_a_norm_without_affine_is_a_module() -> None:
    plain = Net(lambda n, x: n.norm(x), norm=norm(3, affine=False))
    assert isinstance(rebuilt(plain).norm, nn.BatchNorm2d)


def test_a_norm_without_statistics_is_a_module() -> None:
    made = rebuilt(Net(lambda n, x: n.norm(x), norm=norm(3, track_running_stats=False)))
    assert made.get_submodule("norm").running_mean is None


def test_a_norm_that_is_in_training_for_ever_stays_a_call() -> None:
    """Its module would go by the statistics in evaluation mode."""
    plain = Net(lambda n, x: F.batch_norm(x, n.norm.running_mean, n.norm.running_var, training=True), norm=norm(3))
    program = program_of(plain)
    assert "norm" not in [node.target for node in network(program).graph.nodes if node.op == "call_module"]


@pytest.mark.parametrize(
    "run",
    [
        lambda n, x: F.conv2d(x, n.a.weight.abs()),
        lambda n, x: F.conv_transpose2d(x, n.t),
        lambda n, x: F.linear(x, n.a.bias.view(1, 4).repeat(1, 2)),
        lambda n, x: F.linear(x, n.fc.weight),
        lambda n, x: F.conv2d(x, n.a.weight, n.b.bias),
        lambda n, x: F.conv2d(x, n.own, n.own_bias),
    ],
    ids=["computed weight", "transposed", "computed matrix", "vector", "parts of two modules", "other names"],
)
def test_everything_else_stays_a_call(run: Callable[[Any, Tensor], Any]) -> None:
    fc = nn.Module()
    fc.weight = weight(8)
    parts = {"t": nn.Parameter(torch.randn(3, 2, 2, 2)), "own": nn.Parameter(torch.randn(4, 3, 1, 1))}
    made = rebuilt(Net(run, a=conv(), b=conv(), fc=fc, own_bias=nn.Parameter(torch.randn(4)), **parts))
    assert not [module for module in made.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]


def test_a_layer_that_is_called_twice_is_one_module() -> None:
    made = rebuilt(Net(lambda n, x: n.a(n.a(x)), a=conv(3, 3)))
    assert [node.target for node in made.graph.nodes if node.op == "call_module"] == ["a", "a"]


def test_a_weight_that_is_used_in_two_ways_stays_one_and_right() -> None:
    """The second call has another stride than the module has, so it calls the function on the module's weight."""

    def run(n: Net, x: Tensor) -> dict[str, Tensor]:
        return {"a": n.a(x), "b": F.conv2d(x, n.a.weight, n.a.bias, stride=2), "c": n.a.weight * 2}

    made = rebuilt(Net(run, a=conv(3, 4, 3)))
    assert sorted(name for name, _ in made.named_parameters()) == ["a.bias", "a.weight"]
    with torch.no_grad():
        made.get_parameter("a.weight").zero_()
        assert float(made(UNSEEN)["b"].std((0, 2, 3)).max()) == 0


def test_the_other_order_of_use_is_right_too() -> None:
    rebuilt(Net(lambda n, x: {"b": F.conv2d(x, n.a.weight, stride=2), "a": n.a(x)}, a=conv(3, 4, 3)))


def test_buffers_stay_buffers() -> None:
    made = rebuilt(Net(lambda n, x: n.norm(x * n.scale), norm=norm(3), scale=torch.rand(3, 1, 1)))
    assert {name for name, _ in made.named_parameters()} == {"norm.weight", "norm.bias"}
    buffers = {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked", "scale"}
    assert {name for name, _ in made.named_buffers()} == buffers


class Around(nn.Conv2d):
    """A layer that holds another one."""

    def __init__(self, before: bool) -> None:
        super().__init__(3, 3, 1)
        self.inner, self.before = nn.Conv2d(3, 3, 1), before

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.inner(x)) if self.before else self.inner(super().forward(x))


@pytest.mark.parametrize("before", [False, True])
def test_layers_may_lie_inside_layers(before: bool) -> None:
    made = rebuilt(Net(lambda n, x: n.a(x), a=Around(before)))
    assert isinstance(made.get_submodule("a"), nn.Conv2d)
    assert isinstance(made.get_submodule("a.inner"), nn.Conv2d)


@pytest.mark.parametrize(
    "name", ["image", "torch", "fc-1", "größe", "a b", "graph", "_graph", "recompile", "class", "ＡＢ"]
)
def test_modules_may_be_called_anything(name: str) -> None:
    """Even as what a `GraphModule` has already, or as no Python code can say."""
    parts = nn.ModuleDict({name: conv()})
    rebuilt(Net(lambda n, x: n.parts[name](x), parts=parts))
    if name.isidentifier():
        rebuilt(Net(lambda n, x: getattr(n, name)(x)).having(**{name: conv()}))


@pytest.mark.parametrize("read", ["conv", "norm"])
def test_layers_may_read_weights(read: str) -> None:
    plain = Net(lambda n, x: x * n.layer(n.p), p=nn.Parameter(torch.randn(1, 3, 1, 1)))
    rebuilt(plain.having(layer=conv(3, 3) if read == "conv" else norm(3)))


# ---------------------------------------------------------------- what people do with a collapsed network


def gated() -> Net:
    def run(n: Net, x: Tensor) -> dict[str, Tensor]:
        shared = torch.relu(n.norm(n.shared(x)))
        feature = n.gate(torch.relu(n.own(x)), shared)
        return {"map": n.last(F.max_pool2d(feature, 2)), "label": n.fc(n.after(shared.mean((2, 3)).sigmoid()))}

    parts: dict[str, nn.Module] = {"shared": conv(bias=False), "norm": norm(), "own": conv(), "last": conv(4, 2)}
    return Net(run, gate=gate(1, 0, 0, 1), fc=nn.Linear(4, 3), after=nn.BatchNorm1d(4), **parts)


def test_a_collapsed_network_holds_nothing_of_this_package() -> None:
    thin = collapsed(gated())
    kinds = {type(module).__module__.partition(".")[0] for module in thin.network.modules()}
    assert kinds == {"torch"}
    for node in thin.network.graph.nodes:
        assert "gatedeploy" not in str(node.target)


def test_it_trains() -> None:
    thin = collapsed(gated()).train()
    optimiser = torch.optim.SGD(thin.parameters(), lr=0.1)
    losses = []
    for _ in range(3):
        predictions = thin(PICTURE)
        loss = predictions["map"].square().mean() + F.cross_entropy(predictions["label"], torch.tensor([0, 2]))
        losses.append(float(loss.detach()))
        optimiser.zero_grad()
        loss.backward()
        assert all(parameter.grad is not None for parameter in thin.parameters())
        optimiser.step()
    assert losses == sorted(losses, reverse=True)
    statistics = thin.network.get_buffer("after.num_batches_tracked")
    assert int(statistics) == 3


def test_its_weights_are_its_own() -> None:
    network = gated()
    thin = collapsed(network)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with torch.no_grad():
        for parameter in thin.parameters():
            parameter.add_(1)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_a_deep_copy_is_another_network() -> None:
    thin = collapsed(gated())
    expected = thin(UNSEEN)
    copied = copy.deepcopy(thin)
    with torch.no_grad():
        for parameter in thin.parameters():
            parameter.zero_()
    assert_equal(copied(UNSEEN), expected)
    assert float(max(weight.abs().max() for weight in copied.program.weights.values())) > 0


def test_its_state_fits_another_copy_of_it() -> None:
    thin = collapsed(gated())
    other = copy.deepcopy(thin)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    other.load_state_dict(thin.state_dict())
    assert_equal(other(UNSEEN), thin(UNSEEN))


def test_it_is_exported_by_torch_export() -> None:
    thin = collapsed(gated())
    exported = torch.export.export(thin, (PICTURE,), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
    with torch.no_grad():
        assert_equal(exported(UNSEEN), thin(UNSEEN))


def test_it_is_collapsed_again_into_itself() -> None:
    thin = collapsed(gated())
    again = gd.collapse(thin, example_input=PICTURE)
    assert again.report is not None
    assert again.report.gated == again.report.collapsed
    with torch.no_grad():
        assert_equal(again(UNSEEN), thin(UNSEEN))


def test_its_program_has_the_weights_as_they_are_now() -> None:
    thin = collapsed(gated())
    with torch.no_grad():
        thin.network.get_parameter("last.bias").fill_(5)
    assert torch.equal(thin.program.weights["last.bias"], torch.full((2,), 5.0, dtype=torch.float64))


def test_a_network_of_float32_is_float32() -> None:
    network = prepared(gated()).float()
    thin = gd.collapse(network, example_input=PICTURE.float())
    assert {parameter.dtype for parameter in thin.parameters()} == {torch.float32}
    with torch.no_grad():
        assert_equal(thin(UNSEEN.float()), network(UNSEEN.float()), 1e-5)
