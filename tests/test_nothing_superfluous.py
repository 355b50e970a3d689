"""A collapsed network holds what the outputs need and nothing more, judged by an oracle that shares no code with it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import gatedeploy as gd
from gatedeploy.graph.cost import cost
from tests.backbones import PerTask, Residual
from tests.gate_patterns import PATTERNS, set_gates
from tests.models.oracles import macs
from tests.odd_backbones import CalledTwice, Repeated
from tests.oracle import expected_layers, kept_layers
from tests.structures import EXAMPLE, STRUCTURES, Structure
from tests.test_collapse_equals_gated import captured, for_each

# Without barriers, flattened channels or layers without modules, which the oracle does not know.
KNOWN = {"Plain", "Normed", "ActThenNorm", "Residual", "Bottlenecks", "PreActivation", "InvertedResidual", "Dense"}
KNOWN |= {"Inception", "UNet", "InPlace", "CalledTwice", "Pyramid", "Repeated"}
JUDGED = [
    structure for structure in STRUCTURES if getattr(structure.make, "__name__", "") in KNOWN and not structure.head
]


@for_each(JUDGED)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_kept_channels_are_those_of_the_oracle(structure: Structure, pattern: str) -> None:
    network, program = captured(structure)
    assert isinstance(network, gd.GatedNetwork)
    set_gates(network, pattern)
    assert sorted(kept_layers(gd.collapse(program, target=None))) == sorted(expected_layers(network).values())


class _Shared(nn.Module):
    def __init__(self, backbone: nn.Module, heads: nn.Module) -> None:
        super().__init__()
        self.backbone, self.heads = backbone, heads

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = self.backbone(x)
        return {task: head(features) for task, head in self.heads.named_children()}


def _gated_residual() -> gd.GatedNetwork:
    structure = Structure(
        Residual, 3, head=lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))
    )
    network = structure.build()
    assert isinstance(network, gd.GatedNetwork)
    return network


def _same(thin: gd.Collapsed, plain: nn.Module) -> None:
    """Equal outputs, MACs and parameters; the plain network's norms are folded as the collapsed one's are."""
    folded = gd.collapse(plain.double().eval(), example_input=EXAMPLE.double(), target=None)
    with torch.no_grad():
        expected = plain(EXAMPLE.double())
        for task, prediction in thin(EXAMPLE.double()).items():
            assert torch.allclose(prediction, expected[task], rtol=1e-9, atol=1e-12)
    assert cost(thin.program) == cost(folded.program)
    assert sorted(kept_layers(thin)) == sorted(kept_layers(folded))


def test_all_gates_specific_gives_single_task_networks() -> None:
    gated = _gated_residual()
    set_gates(gated, "all specific")
    networks = {
        task.name: nn.Sequential(gated.branches.get_submodule(task.name), gated.heads.get_submodule(task.name))
        for task in gated.tasks
    }
    thin = gd.collapse(gated, example_input=EXAMPLE.double(), target=None)
    _same(thin, PerTask(networks))
    for task, plain in networks.items():
        _same(gd.collapse(gated, example_input=EXAMPLE.double(), tasks=[task], target=None), PerTask({task: plain}))


def test_all_gates_shared_gives_the_uniform_multi_task_network() -> None:
    gated = _gated_residual()
    set_gates(gated, "all shared")
    thin = gd.collapse(gated, example_input=EXAMPLE.double(), target=None)
    _same(thin, _Shared(gated.branches.get_submodule("shared"), gated.heads))
    # Not even a copy is left of the gates: convolutions, activations, sums, pooling and the heads.
    assert not [node for node in thin.network.graph.nodes if "cat" in str(node.target) or "slice" in str(node.target)]


def _layers(network: nn.Module) -> list[tuple[int, ...]]:
    return sorted(tuple(m.weight.shape) for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Linear)))


# Of a layer that is called twice a plain count holds the weight once; one that reads a channel twice becomes cheaper.
@for_each([structure for structure in JUDGED if structure.make not in (CalledTwice, Repeated)])
def test_all_or_nothing_costs_what_plain_networks_cost(structure: Structure) -> None:
    """The layers of T plain backbones, or of one, and their multiply-adds as a hook on every layer counts them."""
    gated, program = captured(structure)
    assert isinstance(gated, gd.GatedNetwork)
    branch = gated.branches.get_submodule
    for pattern, plain in (
        ("all specific", [branch(task.name) for task in gated.tasks]),
        ("all shared", [branch("shared")]),
    ):
        set_gates(gated, pattern)
        thin = gd.collapse(program, target=None)
        assert _layers(thin) == sorted(shape for backbone in plain for shape in _layers(backbone))
        assert cost(thin.program).macs == sum(macs(backbone, EXAMPLE[:1].double())[0] for backbone in plain)


def test_what_a_chosen_task_does_not_need_goes_and_what_it_needs_through_the_mix_stays() -> None:
    gated = _gated_residual()
    set_gates(gated, "all shared")
    first = gated.sites[0]
    gated.gate(first, "task1").choose([True, False, False, False])
    thin = gd.collapse(gated, example_input=EXAMPLE.double(), tasks=["task0"], target=None)
    names = {name.partition(".")[0] for name, _ in thin.network.named_parameters()}
    # task1's own first channel reaches task0 through the mix (eq. 3), with the mix's share; task2's branch is dead.
    assert {"task1", "shared", "heads"} <= names
    assert "task2" not in names
    assert thin.network.get_parameter("task1.stem.0.weight").shape[0] == 1
