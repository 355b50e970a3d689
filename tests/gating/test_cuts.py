"""Where a backbone can be cut in two, worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gatedeploy.errors import InputError
from gatedeploy.gating.cuts import cuts, named, place_of, stage_ends
from gatedeploy.gating.trace import Template, trace

EXAMPLE = torch.zeros(2, 3, 16, 16)


class Block(nn.Module):
    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inner, outer, 3, stride, 1)
        self.again = nn.Conv2d(outer, outer, 3, 1, 1)
        self.short = nn.Conv2d(inner, outer, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.again(F.relu(self.conv(x))) + self.short(x))


class Backbone(nn.Module):
    """A stem, two stages at two resolutions, and what it returns: the second stage's end, or both stages'."""

    def __init__(self, both: bool = False, dilated: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, 2, 1)
        self.a, self.b = Block(4, 5, 1), Block(5, 5, 1)
        self.c = Block(5, 6, 1 if dilated else 2)
        self.both = both

    def forward(self, x: Tensor) -> object:
        first = self.b(self.a(F.relu(self.stem(x))))
        second = self.c(first)
        return (first, second) if self.both else second


def traced(backbone: nn.Module) -> Template:
    return trace(backbone, EXAMPLE)


def names(template: Template) -> list[str]:
    return [node.name for node in stage_ends(template.evaluation, template.root)]


def test_nothing_within_a_residual_block_is_a_cut() -> None:
    found = [node.name for node in cuts(traced(Backbone()).evaluation)]
    assert found == ["stem", "relu", "add", "relu_2", "add_1", "relu_4", "add_2", "relu_6"]


def test_a_stage_ends_where_its_last_block_does() -> None:
    template = traced(Backbone())
    assert names(template) == ["relu_4", "relu_6"]
    first, second = (place_of(node) for node in stage_ends(template.evaluation, template.root))
    assert (first.shape, first.channels, first.extent) == ((5, 8, 8), 5, (8, 8))
    assert (second.shape, second.channels, second.extent) == ((6, 4, 4), 6, (4, 4))


def test_stages_of_one_resolution_are_told_by_the_channels_of_their_sums() -> None:
    assert names(traced(Backbone(dilated=True))) == ["relu_4", "relu_6"]


def test_what_is_returned_is_an_end_and_keeps_nobody_from_cutting_behind_it() -> None:
    template = traced(Backbone(both=True))
    assert names(template) == ["relu_4", "relu_6"]
    assert "add_2" in [node.name for node in cuts(template.evaluation)]


def test_a_backbone_of_one_stage_is_divided_into_quarters() -> None:
    plain = nn.Sequential(*(nn.Sequential(nn.Conv2d(3, 3, 3, 1, 1), nn.ReLU()) for _ in range(8)))
    assert names(traced(plain)) == ["_1_1", "_3_1", "_5_1", "_7_1"]


def test_layers_that_are_read_twice_are_no_cut() -> None:
    class Dense(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.one(x)
            return torch.cat([x, self.two(y)], 1)  # the picture is read to the end

    assert [node.name for node in cuts(traced(Dense()).evaluation)] == ["cat"]


def test_places_are_named_as_the_graph_names_them() -> None:
    template = traced(Backbone())
    assert [node.name for node in named(template.evaluation, template.root, ["relu_6", "relu"])] == ["relu", "relu_6"]
    with pytest.raises(InputError, match="no feature map 'relu9' in the backbone; the ends of its stages are relu_4, "):
        named(template.evaluation, template.root, ["relu9"])
