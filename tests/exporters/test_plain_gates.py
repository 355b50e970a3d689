from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gatedeploy as gd
from gatedeploy.artifact import ModelInfo
from gatedeploy.exporters import export_onnx, plain_gates
from gatedeploy.graph.capture import capture
from gatedeploy.graph.cost import cost
from gatedeploy.graph.modules import network
from gatedeploy.parity import FLOAT32, FLOAT64, compare
from gatedeploy.program import evaluate
from gatedeploy.program_json import graph_to_json
from gatedeploy.runners.in_onnxruntime import OnnxRuntimeRunner
from tests.exporters.networks import example, gated


class ByHand(nn.Module):
    """Channels last; groups of 3 among 7 channels; a gate over the whole tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.own, self.shared = nn.Linear(3, 7), nn.Linear(3, 7)
        self.gate, self.whole, self.mix = gd.ChannelGate(7, group=3, axis=-1), gd.TensorGate(), gd.Mix(2, 7, axis=-1)
        self.soft, self.drawn = gd.SoftGate(), gd.GumbelGate()
        nn.init.constant_(self.soft.weight, 0.3)

    def forward(self, image: Tensor) -> Any:
        pixels = image.permute(0, 2, 3, 1)
        own, shared = self.own(pixels), self.shared(pixels)
        chosen = self.gate(own, shared)
        maps = [feature.permute(0, 3, 1, 2) for feature in (own, shared)]
        whole = {"whole": self.whole(own, shared), "soft": self.soft(*maps), "drawn": self.drawn(*maps)}
        return {"mixed": self.mix(chosen, shared), "chosen": chosen, **whole}


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 2, 1)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return {"depth": self.layer(image)}


@pytest.mark.parametrize("group", [1, 3, 100])
def test_plain_gates_compute_what_the_gates_do(group: int) -> None:
    program = capture(gated(group), example())
    plain = plain_gates(program)
    pictures = torch.randn(3, *program.input.shape)
    compare(evaluate(program, pictures), evaluate(plain, pictures), FLOAT64).check("plain gates")
    assert cost(plain) == cost(program), "every branch is still computed"
    assert "gatedeploy" not in str(graph_to_json(plain)), "only operators that everybody has"


def test_the_least_sure_gates_choose_as_the_gates_do() -> None:
    """A logit chooses by its sign alone (eq. 2), however near to 0 it is."""
    net = gated(1)
    for name, parameter in net.named_parameters():
        if name.endswith("gate_logits"):
            parameter.data.mul_(1e-12)
    program = capture(net, example())
    pictures = torch.randn(3, *program.input.shape)
    compare(evaluate(program, pictures), evaluate(plain_gates(program), pictures), FLOAT64).check("plain gates")


def test_gates_by_hand_on_other_axes_and_sizes() -> None:
    net = ByHand()
    net.gate.choose([True, False, True])
    nn.init.constant_(net.whole.gate_logits, -0.1)
    nn.init.normal_(net.mix.mix_logits)
    program = capture(net, example())
    pictures = torch.randn(2, *program.input.shape)
    got = evaluate(plain_gates(program), pictures)
    compare(evaluate(program, pictures), got, FLOAT64).check("plain gates")
    # By hand: groups are channels 0-2, 3-5 and 6; the first and the last are the task's own.
    pixels = pictures.double().permute(0, 2, 3, 1)
    own, shared = (layer.double()(pixels) for layer in (net.own, net.shared))
    expected = torch.cat([own[..., :3], shared[..., 3:6], own[..., 6:]], -1)
    assert torch.allclose(got["chosen"], expected)
    assert torch.allclose(got["whole"], shared)


@pytest.mark.parametrize("make", [ByHand, pytest.param(lambda: gated(group=3), marks=pytest.mark.slow)])
def test_the_network_as_trained_exports_and_runs(tmp_path: Path, make: Callable[[], nn.Module]) -> None:
    net = make()
    program = capture(net, example())
    info = ModelInfo(tuple(gd.Task(name) for name in program.outputs), program.input)
    export_onnx(network(plain_gates(program)), info, tmp_path / "gated.onnx")
    pictures = example(3)
    with OnnxRuntimeRunner(tmp_path / "gated.onnx") as runner, torch.no_grad():
        compare(net(pictures), runner.infer({"image": pictures.numpy()}), FLOAT32).check("the gated network in ONNX")


def test_a_program_without_gates_stays_as_it_is() -> None:
    program = capture(Plain(), example())
    again = plain_gates(program)
    assert graph_to_json(again) == graph_to_json(program)
    assert again.graph is not program.graph
