"""Spare `torch.onnx` a second tracing.

Before it writes anything it has `torch.export` decompose the graph, which traces all of it anew and takes longer than
all the rest. Collapsed networks consist of operators that have an ONNX form as they are, but for a few, which are
written in core operators here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import fx

from gatedeploy.graph.writes import needs_rewriting

aten = torch.ops.aten


def in_core_forms(exported: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Rewrite those few, and let the program answer that it is decomposed already.

    What writes in place has to be decomposed and is given back as it is. Of another operator the exporter may find that
    it has no ONNX form, though it would have one if it were decomposed: trace the network again then, and leave this
    out.
    """
    if needs_rewriting(exported.graph):
        return exported
    for node in exported.graph.nodes:
        written = _CORE.get(node.target)
        form = written(*node.args, **node.kwargs) if written is not None else None
        if form is not None:
            node.target, node.args = form
            node.kwargs = {}
    exported.graph_module.recompile()
    exported.run_decompositions = lambda decomp_table=None: exported
    return exported


Form = tuple[Any, tuple[Any, ...]]
"""An operator and its arguments."""


def _mean(image: fx.Node, size: Sequence[int]) -> Form | None:
    return (aten.mean.dim, (image, [-2, -1], True)) if list(size) == [1, 1] else None


def _transposed(
    image: fx.Node,
    weight: fx.Node,
    bias: fx.Node | None = None,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    output_padding: Sequence[int] = (0, 0),
    groups: int = 1,
    dilation: Sequence[int] = (1, 1),
) -> Form:
    return aten.convolution.default, (
        *(image, weight, bias, list(stride), list(padding), list(dilation)),
        *(True, list(output_padding), groups),
    )


_CORE: Mapping[Any, Callable[..., Form | None]] = {
    aten.adaptive_avg_pool2d.default: _mean,
    aten.conv_transpose2d.input: _transposed,
}
