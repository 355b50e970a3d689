"""Backbones written in ways that a tracer stumbles over: gated, they still are what they were."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gatedeploy as gd

TASKS = [gd.Task("depth"), gd.Task("normals")]
PICTURE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def gate(backbone: nn.Module, **options: Any) -> gd.GatedNetwork:
    return gd.gate(backbone, TASKS, example_input=PICTURE, **options)


class Layers(nn.Module):
    """Two convolutions, for those below to call as they like."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)


class LoopOverAShape(Layers):
    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        while x.shape[-1] > 2:
            x = F.avg_pool2d(self.b(x), 2)
        return x


class PaddedToAMultiple(Layers):
    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if height % 3 or width % 3:
            x = F.pad(x, (0, -width % 3, 0, -height % 3))
        return self.b(self.a(x))


class Windows(Layers):
    """The batch grows by what Python computes of the picture's size."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        batch, channels, height, width = x.shape
        count = int(height * width / 16)
        x = x.view(batch, channels, 2, height // 2, 2, width // 2).permute(0, 2, 4, 1, 3, 5)
        x = self.b(x.reshape(batch * count, channels, height // 2, width // 2))
        return x.view(batch, count, channels, -1).mean(1)


class BufferForEachPicture(Layers):
    def __init__(self) -> None:
        super().__init__()
        self.grid: Tensor
        self.register_buffer("grid", torch.linspace(-1, 1, 8).view(1, 1, 1, 8))

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        if x.ndim != 4:
            return x.unsqueeze(0)
        return self.b(x * self.grid.expand(x.size(0), 4, x.size(2), -1))


class EntriesWritten(Layers):
    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        x[:, 0] = 0
        x[:, :, 2:] += self.b(x)[:, :, :-2]
        return self.b(x)


class Remembering(Layers):
    """Keeps in a dictionary what it computed of its weights, as levit does."""

    def __init__(self) -> None:
        super().__init__()
        self.cache: dict[str, Tensor] = {}

    def train(self, mode: bool = True) -> None:  # type: ignore[override]
        super().train(mode)
        self.cache = {}

    def forward(self, x: Tensor) -> Tensor:
        if "kernel" not in self.cache:
            self.cache["kernel"] = self.b.weight * 2
        return F.conv2d(self.a(x), self.cache["kernel"], self.b.bias)


class ConstantOfASize(Layers):
    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        ramp = torch.arange(x.shape[-1], dtype=x.dtype, device=x.device)
        return self.b(x + ramp)


class Features(NamedTuple):
    last: Tensor
    extra: Tensor


class HelperInTraining(Layers):
    """As GoogLeNet: in training there are more calls, so fx counts `relu` differently."""

    def forward(self, x: Tensor) -> Tensor | Features:
        x = F.relu(self.a(x))
        extra = F.relu(F.avg_pool2d(x, 8)) if self.training else None
        x = F.relu(self.b(F.relu(x + 1)))
        return x if extra is None else Features(x, extra)


class DroppedPath(Layers):
    """In training alone, half of the pictures go past the second layer, as timm writes it."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        return F.relu(x + self.dropped(F.relu(self.b(x))))

    def dropped(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        kept = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(0.5)
        return x * kept.div_(0.5)


class WithOptions(Layers):
    def forward(self, x: Tensor, twice: bool = False, scale: float | None = None, **unused: Any) -> Tensor:
        x = self.b(self.a(x))
        return x * 2 if twice else x if scale is None else x * scale


ODD = [
    *(LoopOverAShape, PaddedToAMultiple, Windows, BufferForEachPicture, EntriesWritten, Remembering, ConstantOfASize),
    *(HelperInTraining, DroppedPath, WithOptions),
]


@pytest.mark.parametrize("make", ODD)
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


@pytest.mark.parametrize("make", ODD)
def test_it_can_be_trained(make: Callable[[], nn.Module]) -> None:
    network = gate(make())
    for site in network.sites:
        for task in TASKS:
            network.gate(site, task.name).choose([channel % 2 == 0 for channel in range(site.channels)])
    network.train()
    predictions = network(PICTURE)
    loss = sum(leaf.square().sum() for task in TASKS for leaf in _tensors(predictions[task.name]))
    assert isinstance(loss, Tensor)
    loss.backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name


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


class Untraceable(nn.Module):
    """A tensor of its own takes as many rows as there are pictures."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.ones(1, 1, 1, 1).expand(x.shape[0], -1, -1, -1)


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
