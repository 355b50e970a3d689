"""What a network costs by fvcore's count: multiply-adds and parameters, operator by operator.

1 MAC is one multiply-add. As in the papers, only convolutions and linear layers count; what else multiplies and adds
(the matrix products of attention) is listed beside them, and operators for which nothing is counted are named.
`gatedeploy.graph.cost` counts the same from shapes alone; this count follows what really runs.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from gatedeploy.modes import evaluating
from gatedeploy.specs import InputSpec

LAYERS = ("conv", "linear")
"""The operators whose multiply-adds are the cost."""


@dataclass(frozen=True)
class NetworkCost:
    """What one picture costs.

    Args:
        macs: multiply-adds of convolutions and linear layers.
        params: parameters; one that several calls read counts once.
        per_operator: `macs`, by operator.
        products: multiply-adds of matrix products that are no layers (attention); not part of `macs`.
        unsupported: operators for which nothing is counted, with how often each is called.
    """

    macs: int
    params: int
    per_operator: dict[str, int] = field(default_factory=dict)
    products: dict[str, int] = field(default_factory=dict)
    unsupported: dict[str, int] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """The cost in JSON types."""
        return asdict(self)


def count(network: nn.Module, input: InputSpec) -> NetworkCost:
    """Count what `network` does for one picture, by tracing it on real tensors.

    Args:
        network: takes `(1, channels, height, width)` and returns predictions; runs in evaluation mode.
        input: the picture.
    """
    weight = next((tensor for tensor in network.parameters() if tensor.is_floating_point()), torch.zeros(()))
    image = torch.zeros(1, *input.shape, dtype=weight.dtype, device=weight.device)
    with evaluating(network), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fvcore lives on torch.jit, which is deprecated
        from fvcore.nn import FlopCountAnalysis

        analysis = FlopCountAnalysis(_Leaves(network), image)
        analysis.clear_op_handles().set_op_handle(**_handles())
        # What it would warn of is returned.
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
        by_operator, unsupported = analysis.by_operator(), analysis.unsupported_ops()
    layers = {name: int(by_operator[name]) for name in LAYERS if by_operator[name]}
    products = {name: int(macs) for name, macs in sorted(by_operator.items()) if name not in LAYERS and macs}
    params = sum(parameter.numel() for parameter in network.parameters())
    return NetworkCost(sum(layers.values()), params, layers, products, dict(sorted(unsupported.items())))


def total(costs: Iterable[NetworkCost]) -> NetworkCost:
    """What it costs to run several networks that share no parameter, one after the other."""
    costs = list(costs)
    return NetworkCost(
        sum(cost.macs for cost in costs),
        sum(cost.params for cost in costs),
        _sum(cost.per_operator for cost in costs),
        _sum(cost.products for cost in costs),
        _sum(cost.unsupported for cost in costs),
    )


class _Leaves(nn.Module):
    """Predictions as a tuple, which is all that the tracer takes."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(leaf for leaf in pytree.tree_leaves(self.network(image)) if isinstance(leaf, Tensor))


Handle = Callable[[Sequence[Any], Sequence[Any]], Any]


def _handles() -> dict[str, Handle]:
    """Rules by operator; what has none is unsupported."""
    from fvcore.nn.jit_handles import conv_flop_jit, einsum_flop_jit, linear_flop_jit

    return {
        "aten::_convolution": conv_flop_jit,
        "aten::linear": linear_flop_jit,
        "aten::einsum": einsum_flop_jit,
        **dict.fromkeys(("aten::matmul", "aten::mm", "aten::bmm"), _product(0)),
        **dict.fromkeys(("aten::addmm", "aten::baddbmm"), _product(1)),
        "aten::scaled_dot_product_attention": _attention,
    }


def _product(left: int) -> Handle:
    """Every entry of a matrix product is one row of the left factor times one column of the right one."""

    def handle(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
        return math.prod(_shape(outputs[0])) * _shape(inputs[left])[-1]

    return handle


def _attention(inputs: Sequence[Any], outputs: Sequence[Any]) -> Counter[str]:
    """q·kᵀ, and its softmax times v, of `(…, queries, depth)`, `(…, keys, depth)` and `(…, keys, values)`."""
    query, key = _shape(inputs[0]), _shape(inputs[1])
    scores = math.prod(query[:-1]) * key[-2]
    return Counter({"scaled_dot_product_attention": scores * query[-1] + scores * _shape(outputs[0])[-1]})


def _shape(value: Any) -> list[int]:
    sizes: list[int] = value.type().sizes()
    return sizes


def _sum(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    summed: Counter[str] = Counter()
    for each in counts:
        summed.update(each)
    return dict(summed)
