from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gatedeploy as gd
from gatedeploy.graph.capture import capture
from gatedeploy.graph.precompute import MAX_ENTRIES, precomputed
from gatedeploy.program import Program, evaluate

PICTURE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Standardised(nn.Conv2d):
    """Its rows have mean 0 and variance 1, computed as timm does, with a batch norm over the weight."""

    def forward(self, x: Tensor) -> Tensor:
        rows = self.weight.reshape(1, self.out_channels, -1)
        weight = F.batch_norm(rows, None, None, training=True, momentum=0.0).reshape_as(self.weight)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class ByOffset(nn.Module):
    """A table of biases, read by the distance of two rows."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(15))
        self.offsets: Tensor
        self.register_buffer("offsets", torch.arange(8)[:, None] - torch.arange(8)[None] + 7)

    def forward(self, x: Tensor) -> Tensor:
        return (x @ x.mT + self.table[self.offsets.flatten()].view(8, 8)).softmax(-1) @ x


class Halves(nn.Module):
    """What a split makes is no tensor, and both parts of it are weights."""

    def __init__(self) -> None:
        super().__init__()
        self.both = nn.Parameter(torch.randn(6, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        scale, shift = self.both.sigmoid().chunk(2)
        return x * scale + shift


class Expanded(nn.Module):
    """A row for each pixel, of which there are too many to keep."""

    def __init__(self) -> None:
        super().__init__()
        self.row = nn.Parameter(torch.randn(3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, size=(1024, 1024)) * self.row.expand(-1, 1024, 1024).neg()


class Masked(nn.Module):
    """The mask of shifted windows, made anew for each batch, as torchvision writes it."""

    def forward(self, x: Tensor) -> Tensor:
        mask = x.new_zeros((8, 8))
        for number, rows in enumerate((slice(0, 3), slice(3, 5), slice(5, 8))):
            mask[rows, rows] = number
        return x * mask.unsqueeze(0) + torch.zeros_like(x[0]) + torch.ones_like(x)


class Complex(nn.Module):
    """Filters in the frequency domain."""

    def __init__(self) -> None:
        super().__init__()
        self.filter = nn.Parameter(torch.randn(3, 8, 5, 2))

    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.irfft2(torch.fft.rfft2(x) * torch.view_as_complex(self.filter), s=(8, 8))


class Net(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"out": self.body(x)}


def program(body: nn.Module) -> Program:
    torch.manual_seed(0)
    return capture(Net(body), PICTURE)


def called(program: Program) -> Counter[str]:
    names = (str(node.target).split(".")[1] for node in program.graph.nodes if node.op == "call_function")
    return Counter(name for name in names if name != "sym_size")


@pytest.mark.parametrize(
    ("body", "left"),
    [
        (Standardised(3, 4, 3), {"conv2d": 1}),
        (ByOffset(), {"matmul": 2, "mT": 1, "add": 1, "softmax": 1}),
        (Halves(), {"mul": 1, "add": 1}),
        (Masked(), {"mul": 1, "add": 2, "ones_like": 1}),
    ],
)
def test_only_what_reads_the_picture_is_left(body: nn.Module, left: dict[str, int]) -> None:
    before = program(body)
    after = precomputed(before)
    assert called(after) == Counter(left)
    image = PICTURE.double()
    torch.testing.assert_close(evaluate(after, image), evaluate(before, image), rtol=1e-12, atol=1e-12)
    made = after.weights.keys() - before.weights.keys()
    assert made
    assert not before.trainable or made <= after.trainable
    assert all(after.weights[name].dtype == torch.float64 for name in made)


def test_complex_numbers_are_no_weights() -> None:
    before = program(Complex())
    assert precomputed(before) is before


def test_a_weight_is_not_stored_expanded() -> None:
    after = precomputed(program(Expanded()))
    assert sum(weight.numel() for weight in after.weights.values()) <= MAX_ENTRIES


def test_nothing_to_do() -> None:
    before = program(nn.Conv2d(3, 4, 1))
    assert precomputed(before) is before


def test_standardised_layers_are_taken_apart_like_others() -> None:
    """Of eight rows the tasks read one half each: no row is left that nobody reads, and no barrier."""
    backbone = nn.Sequential(Standardised(3, 8, 3, padding=1), nn.ReLU(), Standardised(8, 4, 3, padding=1))
    network = gd.gate(backbone, [gd.Task("a"), gd.Task("b")], example_input=PICTURE)
    for site in network.sites:
        network.gate(site, "a").choose([True] * site.channels)
        network.gate(site, "b").choose([False] * site.channels)
    thin = gd.collapse(network, example_input=PICTURE, target=None)
    assert thin.report is not None
    assert thin.report.barriers == {}
    rows = Counter(module.out_channels for module in thin.network.modules() if isinstance(module, nn.Conv2d))
    assert rows == {8: 2, 4: 2}, "a's own two layers and the shared two"
    assert any(parameter.requires_grad for parameter in thin.network.parameters())
