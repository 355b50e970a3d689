from __future__ import annotations

import pytest
import torch
from torch import nn

from gatedeploy.errors import InputError
from gatedeploy.gating.multi_head import MultiHead
from gatedeploy.graph.capture import capture
from tests.training.made_up import TASKS, Head, make_backbone


def test_one_backbone_feeds_every_head() -> None:
    network = MultiHead(make_backbone(), {task.name: Head(task) for task in TASKS}).eval()
    images = torch.randn(2, 3, 8, 8)
    predictions = network(images)
    assert {name: tuple(value.shape) for name, value in predictions.items()} == {
        "colour": (2, 2),
        "parts": (2, 2, 8, 8),
        "depth": (2, 1, 8, 8),
        "normals": (2, 3, 8, 8),
    }
    assert torch.equal(predictions["depth"], network.heads["depth"](network.backbone(images)))


def test_it_is_captured_like_a_gated_network() -> None:
    program = capture(MultiHead(make_backbone(), {"depth": Head(TASKS[2])}), torch.zeros(2, 3, 8, 8))
    assert list(program.outputs) == ["depth"]


def test_heads_are_needed_under_names_that_are_free() -> None:
    with pytest.raises(InputError, match=r"a network needs a head for at least one task"):
        MultiHead(nn.Identity(), {})
    with pytest.raises(InputError, match=r"a task is called what torch\.nn\.ModuleDict calls something of its own"):
        MultiHead(nn.Identity(), {"keys": nn.Identity()})
