"""Backbones written in ways that a tracer stumbles over: gated, they still are what they were."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gatedeploy as gd
from tests.pythonic_backbones import (
    PYTHONIC,
    ConstantOfASize,
    FrozenStem,
    HelperInTraining,
    HiddenLayer,
    KernelsOfEachPicture,
    Layers,
    LoopOverAShape,
    Remembering,
)

TASKS = [gd.Task("depth"), gd.Task("normals")]
PICTURE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def gate(backbone: nn.Module, **options: Any) -> gd.GatedNetwork:
    return gd.gate(backbone, TASKS, example_input=PICTURE, **options)


@pytest.mark.parametrize("make", [*PYTHONIC, KernelsOfEachPicture])
def test_gated_it_is_the_backbone_and_collapses(make: Callable[[], nn.Module]) -> None:
    backbone = make()
    backbone.eval()
    network = gate(backbone)
    for task in ("depth", "normals"):
        network.load_branch(task, backbone.state_dict())
        for site in network.sites:
            network.gate(site, task).choose([task == "depth"] * site.channels)
    with torch.no_grad():
        network.load_branch("shared", {name: weight * 1.1 for name, weight in backbone.state_dict().items()})
        torch.testing.assert_close(network(PICTURE)["depth"], backbone(PICTURE))
        five = torch.randn(5, 3, 8, 8)
        torch.testing.assert_close(network(five)["depth"], backbone(five))
        thin = gd.collapse(network, example_input=PICTURE, target=None)
        for task, expected in network(five).items():
            torch.testing.assert_close(thin(five)[task], expected)


def _tensors(prediction: Any) -> tuple[Tensor, ...]:
    return (prediction,) if isinstance(prediction, Tensor) else tuple(prediction)


def test_gates_stand_at_the_same_place_in_both_modes() -> None:
    """Closed gates on the last `relu`: its specific weights must not matter in training either."""
    network = gate(HelperInTraining())
    assert [site.name for site in network.sites] == ["relu", "relu_2"]
    for task in ("depth", "normals"):
        network.gate(network.sites[-1], task).choose([False] * 4)
    network.train()
    predictions = network(PICTURE)
    sum(_tensors(predictions[task.name])[0].sum() for task in TASKS).backward()  # type: ignore[union-attr]
    gradient = network.get_parameter("branches.depth.b.weight").grad
    assert gradient is None or not gradient.any(), "the gate passes gradients to α alone"


def test_layers_that_are_hidden_from_fx_are_found() -> None:
    assert [site.name for site in gate(HiddenLayer()).sites] == ["a", "b", "relu", "a_1"]


@torch.fx.wrap
def scaled_tensor(x: Tensor, scale: Any) -> Tensor:
    if not isinstance(x, Tensor):
        raise TypeError("not a tensor")
    return x * scale[:, None, None]


def test_what_is_hidden_and_cannot_be_followed_stays_whole() -> None:
    class Scaled(Layers):
        def forward(self, x: Tensor) -> Tensor:
            return self.b(scaled_tensor(self.a(x), self.a.bias))

    network = gate(Scaled())
    assert [site.name for site in network.sites] == ["a", "b"]
    larger = torch.randn(2, 3, 12, 12)
    assert gd.collapse(network, example_input=larger)(larger)["depth"].shape == (2, 4, 12, 12)


def test_no_gradients_where_the_backbone_lets_none_through() -> None:
    network = gate(FrozenStem())
    assert [site.name for site in network.sites] == ["relu", "b"]
    for site in network.sites:
        network.gate(site, "depth").choose([True] * 4)
    network.train()
    network(PICTURE)["depth"].sum().backward()
    assert network.get_parameter("branches.depth.a.weight").grad is None
    assert network.get_parameter("branches.depth.b.weight").grad is not None


class Remembers(Layers):
    """A running mean; written in place, or made anew."""

    anew = False

    def __init__(self) -> None:
        super().__init__()
        self.mean: Tensor
        self.register_buffer("mean", torch.zeros(4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        mean = x.detach().mean((0, 2, 3), keepdim=True)[0]
        if self.training and self.anew:
            self.mean = 0.9 * self.mean + 0.1 * mean
        elif self.training:
            self.mean.mul_(0.9).add_(0.1 * mean)
        return self.b(x - self.mean)


@pytest.mark.parametrize("anew", [True, False])
def test_what_is_remembered_in_training_is_not_forgotten(anew: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Remembers, "anew", anew)
    told = r"the backbone Sequential writes its buffer '0\.mean' in training, .* with leaf_modules=\['0'\]"
    with pytest.raises(gd.InputError, match=told):
        gate(nn.Sequential(Remembers(), nn.ReLU()))
    with pytest.raises(gd.InputError, match="a module of its own and leaf_modules"):
        gate(Remembers())
    network = gate(nn.Sequential(Remembers(), nn.ReLU()), leaf_modules=["0"])
    network.train()
    network(PICTURE)
    assert network.get_buffer("branches.depth.0.mean").any()


class OwnNorm(nn.BatchNorm2d):
    """A batch norm written out, as timm's, which fx looks into."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, self.training, 0.1)


def test_a_norm_of_ones_own_keeps_its_statistics() -> None:
    network = gate(nn.Sequential(nn.Conv2d(3, 4, 1), OwnNorm(4), nn.ReLU()))
    network.train()
    network(PICTURE)
    assert network.get_buffer("branches.depth.1.running_mean").any()


def test_pictures_of_another_size() -> None:
    """Fine where nothing asks for sizes; else refused, since what was asked stays as it was."""
    other = torch.randn(1, 3, 16, 16)
    assert gate(Layered())(other)["depth"].shape == (1, 4, 16, 16)
    with pytest.raises(gd.InputError, match=r"it takes pictures \(3, 8, 8\) alone, got \(3, 16, 16\): something in it"):
        gate(LoopOverAShape())(other)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_gates_are_as_precise_as_the_backbone(dtype: torch.dtype) -> None:
    network = gd.gate(Layered().to(dtype), TASKS, example_input=PICTURE.to(dtype))
    assert {parameter.dtype for parameter in network.parameters()} == {dtype}
    assert network(PICTURE.to(dtype))["depth"].dtype == dtype


def test_constants_go_where_the_network_goes() -> None:
    network = gate(ConstantOfASize()).double()
    assert network(PICTURE.double())["depth"].dtype == torch.float64
    assert all("constant" not in name for name in network.state_dict())


def test_the_backbone_is_left_as_it_was() -> None:
    backbone = Remembering()
    backbone.train()
    gate(backbone)
    assert backbone.training
    assert all(type(kept) is Tensor for kept in backbone.cache.values())


class Layered(Layers):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x).relu())


class Untraceable(nn.Module):
    """While it is traced there is no tensor."""

    def forward(self, x: Tensor) -> Tensor:
        assert isinstance(x, Tensor)
        return x * 2


class TestLeaves:
    def test_the_error_names_module_line_and_class(self) -> None:
        told = (
            r"cannot trace the backbone Sequential, in its module 1 \(.*test_trace.py:\d+, in forward\).*"
            r"gate around it with leaf_modules=\['1'\], or leaf_modules=\[Untraceable\]"
        )
        with pytest.raises(gd.InputError, match=told):
            gate(nn.Sequential(nn.Conv2d(3, 4, 1), Untraceable(), nn.Conv2d(4, 4, 1)))

    @pytest.mark.parametrize("leaf", ["1", Untraceable], ids=["by name", "by class"])
    def test_a_leaf_is_not_looked_into_and_collapses(self, leaf: str | type[nn.Module]) -> None:
        network = gate(nn.Sequential(nn.Conv2d(3, 4, 1), Untraceable(), nn.Conv2d(4, 4, 1)), leaf_modules=[leaf])
        assert [site.name for site in network.sites] == ["_0", "_2"]
        for site in network.sites:
            network.gate(site, "depth").choose([True, False, True, False])
        network.eval()
        thin = gd.collapse(network, example_input=PICTURE)
        with torch.no_grad():
            for task, expected in network(PICTURE).items():
                torch.testing.assert_close(thin(PICTURE)[task], expected)

    def test_that_are_not_there(self) -> None:
        backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())
        with pytest.raises(gd.InputError, match=r"leaf_modules: the backbone has no module '01'; did you mean"):
            gate(backbone, leaf_modules=["01"])
        with pytest.raises(gd.InputError, match="leaf_modules: the backbone has no module of class GELU"):
            gate(backbone, leaf_modules=[nn.GELU])


class TestRefusals:
    def test_of_writing_through_a_view(self) -> None:
        class Aliasing(Layers):
            def forward(self, x: Tensor) -> Tensor:
                x = self.a(x)
                seen = x.view(-1, 4, 64)
                x.mul_(2)
                return seen.sum(-1)

        with pytest.raises(gd.InputError, match=r"writes in place into 'a' .* reads the same memory through 'view'"):
            gate(Aliasing())

    def test_of_sites_that_exist_in_one_mode_only(self) -> None:
        class TwoFaced(Layers):
            def forward(self, x: Tensor) -> Tensor:
                return self.a(x) if self.training else self.b(self.a(x))

        told = "differs between training and evaluation: 'b' exists only in evaluation"
        with pytest.raises(gd.InputError, match=told):
            gate(TwoFaced())

    def test_of_what_the_trace_does_not_see(self) -> None:
        class Asking(Layers):
            def forward(self, x: Tensor) -> Tensor:
                x = self.b(self.a(x))
                return x if isinstance(x, Tensor) else -x

        told = re.escape("what torch.fx traces of the backbone Asking is not what it computes")
        with pytest.raises(gd.InputError, match=told):
            gate(Asking())
