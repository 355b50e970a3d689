"""The smallest networks and what is asked of them, for the tests of capture, rules and passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import gatedeploy as gd
from gatedeploy.graph.build import channel_graph
from gatedeploy.graph.capture import capture
from gatedeploy.graph.channels import ChannelGraph, Operation
from gatedeploy.graph.prices import Prices
from gatedeploy.graph.sums import Sum
from gatedeploy.lowering import PASSES, passes_by_price, passes_to_sums
from gatedeploy.passes.base import Pass, run_passes
from gatedeploy.program import Program, evaluate

PICTURE = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
UNSEEN = torch.randn(3, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


class Net(nn.Module):
    """A network written as one function of itself and the picture; predictions without a name are called `y`."""

    def __init__(self, run: Callable[[Any, Tensor], Any], **parts: nn.Module | Tensor) -> None:
        super().__init__()
        self.run = run
        for name, part in parts.items():
            if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def having(self, **attributes: Any) -> Net:
        """The network itself, with more attributes."""
        for name, attribute in attributes.items():
            setattr(self, name, attribute)
        return self

    def forward(self, x: Tensor) -> Any:
        predictions = self.run(self, x)
        return {"y": predictions} if isinstance(predictions, Tensor) else predictions


def conv(inputs: int = 3, outputs: int = 4, kernel: int | tuple[int, int] = 1, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, **options)


def norm(channels: int = 4, **options: Any) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, **options)


def gate(*specific: bool | int, group: int = 1, axis: int = 1, channels: int | None = None) -> gd.ChannelGate:
    """A gate with these choices, one per group."""
    made = gd.ChannelGate(channels or len(specific) * group, group, axis)
    made.choose([bool(choice) for choice in specific])
    return made


def mix(*logits: Sequence[float], axis: int = 1) -> gd.Mix:
    """A mix with these β, one row per task."""
    made = gd.Mix(len(logits), len(logits[0]), axis)
    made.mix_logits.data = torch.tensor(logits)
    return made


def weight(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape))


def prepared(network: nn.Module) -> nn.Module:
    """`network` in float64 and evaluation mode, its statistics made irregular so that a mistake in them shows."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            assert module.running_var is not None
            module.running_mean.normal_(std=0.3)
            module.running_var.uniform_(0.5, 2)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.3)
    return network.double().eval()


def program_of(network: nn.Module) -> Program:
    return capture(prepared(network), PICTURE)


def lowered(network: nn.Module, last: type[Pass]) -> ChannelGraph:
    """The channel graph of `network` after the passes up to `last`."""
    graph = channel_graph(program_of(network))
    run_passes(graph, [step() for step in PASSES[: PASSES.index(last) + 1]])
    return graph


def laid_out(network: nn.Module, prices: Prices, last: type[Pass] | None = None) -> ChannelGraph:
    """The channel graph of `network` after the passes that go by price, up to the first of type `last`."""
    graph = channel_graph(program_of(network))
    steps = [*passes_to_sums(prices), *passes_by_price(prices)]
    types = [type(step) for step in steps]
    run_passes(graph, steps if last is None else steps[: types.index(last) + 1])
    return graph


def sums(graph: ChannelGraph) -> list[Sum]:
    return [operation for operation in graph.operations if isinstance(operation, Sum)]


def operators(graph: ChannelGraph) -> list[str]:
    """The names of the operators that are left, in order: `conv2d`, `batch_norm`, `blend`, …"""
    return [_name(operation) for operation in graph.operations]


def _name(operation: Operation) -> str:
    packet = getattr(operation.target, "overloadpacket", operation.target)
    return str(getattr(packet, "__name__", packet))


def the(graph: ChannelGraph, name: str) -> Operation:
    """The one operation of this operator."""
    (operation,) = all_of(graph, name)
    return operation


def all_of(graph: ChannelGraph, name: str) -> list[Operation]:
    return [operation for operation in graph.operations if _name(operation) == name]


def rows(graph: ChannelGraph, weight: str) -> list[list[int]]:
    """Which rows of `weight` each operation that reads it reads."""
    found = []
    for operation in graph.operations:
        for operand in operation.operands:
            places = [graph.weight_of.get(id_) for id_ in operand.value.ids.tolist()]
            if places and all(place is not None and place[0] == weight for place in places):
                found.append([place[3] for place in places if place is not None])
    return found


def calls(program: Program) -> list[str]:
    """The operators that a program calls, in order."""
    nodes = program.graph.nodes
    return [
        str(node.target).removeprefix("aten.").partition(".")[0]
        for node in nodes
        if node.op == "call_function" and "aten" in str(node.target)
    ]


def shape(thin: gd.Collapsed, name: str) -> tuple[int, ...]:
    """The shape of a weight of a collapsed network."""
    return tuple(thin.program.weights[name].shape)


def collapsed(network: nn.Module, prices: Prices | None = None) -> gd.Collapsed:
    """The collapsed network, found to compute what `network` does on pictures and batches it was not made from."""
    prepared(network)
    thin = gd.collapse(network, example_input=PICTURE, target=prices)
    for pictures in (UNSEEN, UNSEEN[:1]):
        with torch.no_grad():
            assert_equal(thin(pictures.clone()), network(pictures.clone()))
    return thin


def assert_equal(got: Any, expected: Any, tolerance: float = 1e-9) -> None:
    """Equal structure, shapes and numbers, the largest difference judged by the largest number."""
    ours, theirs = pytree.tree_leaves(got), pytree.tree_leaves(expected)
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert one.shape == other.shape
        if other.numel():
            assert float((one.double() - other.double()).abs().max()) <= tolerance * float(other.abs().max())


def assert_captured(network: nn.Module) -> None:
    """The program says what the network says, and so does what becomes of it."""
    prepared(network)
    program = capture(network, PICTURE.clone())
    thin = gd.collapse(program)
    for pictures in (UNSEEN, UNSEEN[:1]):
        with torch.no_grad():
            expected = network(pictures.clone())
            assert_equal(evaluate(program, pictures.clone()), expected)
            assert_equal(thin(pictures.clone()), expected)
