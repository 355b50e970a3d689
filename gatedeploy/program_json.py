"""A program's graph as JSON.

What is read may come from a stranger. So operators are looked up in a list of functions that compute and do nothing
else, names are checked before they become names in a network, and the graph must fit its weights.
"""

from __future__ import annotations

import keyword
import math
import operator
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx

from gatedeploy.errors import InputError
from gatedeploy.program import Program
from gatedeploy.specs import InputSpec

OPERATORS = frozenset(
    (
        # layers
        "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution linear matmul mm "
        "bmm addmm baddbmm einsum batch_norm layer_norm native_layer_norm group_norm native_group_norm "
        "instance_norm rms_norm _native_batch_norm_legit_no_training embedding scaled_dot_product_attention "
        "dropout feature_dropout alpha_dropout feature_alpha_dropout "
        # activations and arithmetic
        "relu relu6 leaky_relu prelu elu celu selu gelu silu mish glu hardswish hardsigmoid hardtanh sigmoid "
        "tanh softplus log_sigmoid hardshrink softshrink threshold softmax _softmax log_softmax _log_softmax "
        "clamp clamp_min clamp_max abs neg exp log sqrt rsqrt square reciprocal erf sin cos floor ceil round "
        "sign add sub rsub mul div pow maximum minimum where lerp eq ne lt le gt ge addcmul logical_and "
        "logical_or logical_not bitwise_and bitwise_not masked_fill type_as to _to_copy "
        # pooling, resizing, reductions
        "max_pool1d max_pool2d max_pool2d_with_indices avg_pool1d avg_pool2d adaptive_avg_pool1d "
        "adaptive_avg_pool2d _adaptive_avg_pool2d adaptive_max_pool2d upsample_nearest1d upsample_nearest2d "
        "_upsample_nearest_exact2d upsample_linear1d upsample_bilinear2d upsample_bicubic2d grid_sampler "
        "grid_sampler_2d pad constant_pad_nd reflection_pad2d replication_pad2d mean sum amax amin max min "
        "argmax argmin var var_mean std norm linalg_vector_norm cumsum topk sort "
        # shapes
        "clone contiguous alias detach lift_fresh_copy view reshape _unsafe_view flatten unflatten permute "
        "transpose t squeeze unsqueeze expand expand_as repeat cat concat stack slice narrow select split "
        "split_with_sizes chunk unbind index_select gather index roll flip movedim swapaxes pixel_shuffle "
        "pixel_unshuffle unfold im2col col2im tile repeat_interleave tril triu diagonal view_as meshgrid "
        # made from nothing, and sizes
        "full full_like zeros zeros_like ones ones_like arange linspace scalar_tensor eye new_zeros new_ones "
        "new_full sym_size sym_numel "
    ).split()
)
"""ATen operators that a saved graph may call, any overload that writes into nothing."""

PYTHON = {
    "getitem": operator.getitem,
    **{"add": operator.add, "sub": operator.sub, "mul": operator.mul, "floordiv": operator.floordiv},
    **{"mod": operator.mod, "neg": operator.neg},
}
"""What else it may call: arithmetic on sizes, and taking one of several results."""

DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.bool)
}
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,200}")
WEIGHT = re.compile(r"[A-Za-z0-9_]{1,200}(\.[A-Za-z0-9_]{1,200}){0,40}")
MAX_NODES = 1_000_000


def graph_to_json(program: Program) -> dict[str, Any]:
    """The graph of `program` in JSON types: nodes in order, and the output structure.

    Raises:
        InputError: it calls an operator that saved graphs may not call.
    """
    nodes = []
    for node in program.graph.nodes:
        if node.op == "get_attr":
            nodes.append({"name": node.name, "weight": str(node.target)})
        elif node.op == "call_function":
            call = {
                "name": node.name,
                "call": _target_name(node.target),
                "args": [_encode(argument) for argument in node.args],
            }
            if node.kwargs:
                call["kwargs"] = {key: _encode(value) for key, value in node.kwargs.items()}
            nodes.append(call)
        elif node.op == "placeholder":
            nodes.append({"name": node.name, "input": True})
    return {"nodes": nodes, "outputs": _encode(program.outputs), "trainable": sorted(program.trainable)}


def graph_from_json(plain: Mapping[str, Any], weights: Mapping[str, Tensor], input: InputSpec) -> Program:
    """Read what `graph_to_json` wrote.

    Args:
        plain: the JSON value; nothing in it is trusted.
        weights: the tensors that it may use, by name.
        input: the picture.

    Raises:
        InputError: it is no graph, or calls what a saved graph may not call, or does not fit the weights.
    """
    try:
        return _Reader(weights).read(plain, input)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise InputError(f"its graph is malformed ({type(error).__name__}: {error})") from None


class _Reader:
    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self.weights = weights
        self.graph = fx.Graph()
        self.nodes: dict[str, fx.Node] = {}

    def read(self, plain: Mapping[str, Any], input: InputSpec) -> Program:
        if len(plain["nodes"]) > MAX_NODES:
            raise InputError(f"its graph has {len(plain['nodes'])} nodes; at most {MAX_NODES} are read")
        if not NAME.fullmatch(input.name) or keyword.iskeyword(input.name):
            raise InputError(f"its input is called {input.name!r}, which is no identifier")
        used: dict[str, Tensor] = {}
        for item in plain["nodes"]:
            name = str(item["name"])
            if not NAME.fullmatch(name) or name in self.nodes:
                raise InputError(
                    f"its graph has a node called {name[:50]!r}: no identifier, or one that was there before"
                )
            if "weight" in item:
                target = str(item["weight"])
                if target not in self.weights or not WEIGHT.fullmatch(target):
                    raise InputError(f"its graph reads a weight {target[:50]!r} that is not in the file")
                used[target] = self.weights[target]
                self.nodes[name] = self.graph.create_node("get_attr", target, name=name)
            elif "call" in item:
                self.nodes[name] = self._call(name, item)
            else:
                self.nodes[name] = self.graph.placeholder(input.name)
        outputs = self._decode(plain["outputs"])
        if not isinstance(outputs, dict) or not outputs:
            raise InputError("its graph has no outputs by task")
        self.graph.output(outputs)
        self.graph.lint()
        trainable = frozenset(str(name) for name in plain["trainable"])
        return Program(self.graph, used, trainable & set(used), input)

    def _call(self, name: str, item: Mapping[str, Any]) -> fx.Node:
        target = _target(str(item["call"]))
        args = tuple(self._decode(arg) for arg in item["args"])
        kwargs = {str(key): self._decode(value) for key, value in item.get("kwargs", {}).items()}
        schema = getattr(target, "_schema", None)
        known = {argument.name for argument in schema.arguments} if schema else set()
        if not set(kwargs) <= known or (schema and len(args) > len(schema.arguments)):
            raise InputError(f"its graph calls {item['call']} with arguments that it does not have")
        return self.graph.create_node("call_function", target, args, kwargs, name=name)

    def _decode(self, item: Any) -> Any:
        if item is None or isinstance(item, (bool, int, float)):
            return item
        if isinstance(item, str):
            if not re.fullmatch(r"[a-z_]{0,30}", item):
                raise InputError(f"its graph has a text argument {item[:50]!r}; expected a mode such as 'bilinear'")
            return item
        if isinstance(item, list):
            return [self._decode(part) for part in item]
        (kind, value), *rest = item.items()
        if rest:
            raise ValueError("an argument of two kinds")
        if kind == "node":
            return self.nodes[value]
        if kind == "dtype":
            return DTYPES[value]
        if kind == "float":
            return float(value)
        if kind == "tuple":
            return tuple(self._decode(part) for part in value)
        if kind == "dict":
            if not all(isinstance(key, str) for key in value):
                raise ValueError("a key that is no text")
            return {key: self._decode(part) for key, part in value.items()}
        raise ValueError(f"an argument of unknown kind {kind!r}")


def _encode(item: Any) -> Any:
    if isinstance(item, fx.Node):
        return {"node": item.name}
    if item is None or isinstance(item, (bool, int, str)):
        return item
    if isinstance(item, float):
        return item if math.isfinite(item) else {"float": str(item)}  # JSON has no infinity
    if isinstance(item, torch.dtype):
        return {"dtype": str(item).removeprefix("torch.")}
    if isinstance(item, (torch.memory_format, torch.layout, torch.device)):
        return None  # where and how a tensor lies is for whoever loads it to decide
    if isinstance(item, dict):
        return {"dict": {key: _encode(part) for key, part in item.items()}}
    if isinstance(item, tuple) and type(item) is tuple:
        return {"tuple": [_encode(part) for part in item]}
    if isinstance(item, (list, tuple)):
        return [_encode(part) for part in item]
    raise InputError(f"an argument {item!r} of its graph cannot be saved")


def _target_name(target: Any) -> str:
    for name, function in PYTHON.items():
        if target is function:
            return f"python.{name}"
    name = str(target)
    _target(name)
    return name


def _target(name: str) -> Any:
    """The function of this name; `InputError` unless saved graphs may call it."""
    namespace, _, rest = name.partition(".")
    packet, _, overload = rest.partition(".")
    if namespace == "python" and rest in PYTHON:
        return PYTHON[rest]
    allowed = (namespace == "aten" and packet in OPERATORS) or name in (
        "gatedeploy.select.default",
        "gatedeploy.mix.default",
    )
    function = getattr(getattr(getattr(torch.ops, namespace), packet), overload, None) if allowed and overload else None
    if not isinstance(function, torch._ops.OpOverload) or function._schema.is_mutable:
        raise InputError(
            f"its graph calls {name[:80]!r}, which is not among the operators that a saved network may use "
            "(gatedeploy.program_json.OPERATORS)"
        )
    return function
