"""A program's graph as JSON.

What is read may come from a stranger. So operators are looked up in a list of functions that compute and do nothing
else, names are checked before they become names in a network, and the graph must fit its weights.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from gatedeploy.errors import InputError, located
from gatedeploy.program import IMAGE, Program, is_weight_name
from gatedeploy.shapes import shapes_of
from gatedeploy.specs import InputSpec

OPERATORS = frozenset(
    (
        # layers
        "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution linear bilinear embedding "
        "batch_norm _native_batch_norm_legit_no_training layer_norm native_layer_norm group_norm native_group_norm "
        "instance_norm rms_norm _weight_norm scaled_dot_product_attention "
        "dropout feature_dropout alpha_dropout feature_alpha_dropout "
        # products
        "matmul mm mv bmm dot outer addmm addmv baddbmm einsum tensordot cross cdist cosine_similarity "
        # activations
        "relu relu6 leaky_relu prelu elu celu selu gelu silu mish glu hardswish hardsigmoid hardtanh sigmoid tanh "
        "softplus log_sigmoid logit hardshrink softshrink threshold softmax _softmax log_softmax _log_softmax "
        # arithmetic
        "add sub rsub mul div floor_divide remainder fmod pow float_power square sqrt rsqrt reciprocal neg abs sign "
        "sgn exp exp2 expm1 log log2 log10 log1p logaddexp xlogy erf sin cos tan asin acos atan atan2 sinh cosh "
        "hypot floor ceil round trunc frac clamp clamp_min clamp_max maximum minimum lerp addcmul addcdiv nan_to_num "
        "type_as to _to_copy "
        # comparisons and choices
        "eq ne lt le gt ge isnan isinf isfinite logical_and logical_or logical_xor logical_not "
        "bitwise_and bitwise_or bitwise_xor bitwise_not where masked_fill "
        # pooling, resizing and padding
        "max_pool1d max_pool2d max_pool3d max_pool2d_with_indices max_pool3d_with_indices max_unpool2d "
        "avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d "
        "_adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d "
        "upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d "
        "_upsample_nearest_exact3d upsample_linear1d upsample_bilinear2d upsample_trilinear3d upsample_bicubic2d "
        "_upsample_bilinear2d_aa _upsample_bicubic2d_aa grid_sampler grid_sampler_2d grid_sampler_3d "
        "affine_grid_generator pad constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d "
        "replication_pad1d replication_pad2d replication_pad3d "
        # reductions and orders
        "mean sum prod amax amin aminmax max min argmax argmin any all count_nonzero var var_mean std std_mean median "
        "nansum nanmean logsumexp norm linalg_norm linalg_vector_norm cumsum cumprod cummax cummin diff topk sort "
        # shapes
        "clone contiguous alias detach lift_fresh_copy view view_as reshape reshape_as _unsafe_view flatten unflatten "
        "ravel squeeze unsqueeze permute transpose t mT numpy_T movedim swapaxes flip fliplr flipud rot90 roll "
        "expand expand_as broadcast_to repeat repeat_interleave tile meshgrid tril triu diagonal "
        "pixel_shuffle pixel_unshuffle channel_shuffle unfold im2col col2im "
        # joining, cutting, looking up and writing into a copy
        "cat concat stack hstack vstack slice narrow select split split_with_sizes chunk tensor_split unbind "
        "index index_select gather take_along_dim one_hot bucketize slice_scatter select_scatter scatter scatter_add "
        "index_put copy fill "
        # made from nothing, and sizes
        "full full_like zeros zeros_like zero ones ones_like arange linspace scalar_tensor eye new_zeros new_ones "
        "new_full sym_size sym_numel "
        # second names of some of these
        "absolute clip subtract multiply divide true_divide negative not_equal less less_equal greater greater_equal "
        "moveaxis swapdims concatenate"
    ).split()
)
"""ATen operators that a saved graph may call, any overload that writes into nothing: they compute, and read no memory
but that of their arguments."""

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
MEMORY_FORMATS = {
    str(layout).removeprefix("torch."): layout
    for layout in (torch.contiguous_format, torch.preserve_format, torch.channels_last, torch.channels_last_3d)
}
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
TEXT = re.compile(r"[A-Za-z_,.> -]{0,200}")
MAX_NODES = 1_000_000


def graph_to_json(program: Program) -> dict[str, Any]:
    """The graph of `program` in JSON types: nodes in order, and the output structure.

    Raises:
        InputError: it calls an operator that saved graphs may not call, or holds something that JSON cannot say.
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
    """Read what `graph_to_json` wrote, and follow it once from shape to shape.

    Args:
        plain: the JSON value; nothing in it is trusted.
        weights: the tensors that it may use, by name.
        input: the picture.

    Raises:
        InputError: it is no graph, or calls what a saved graph may not call, or its calls, its weights and the picture
            do not fit each other.
    """
    try:
        program = _Reader(weights).read(plain, input)
    except RecursionError:
        raise InputError("its graph is malformed: nested too deep") from None
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise InputError(f"its graph is malformed ({type(error).__name__}: {error})") from None
    with located("its graph does not fit"):
        shapes_of(program)
    return program


class _Reader:
    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self.weights = weights
        self.graph = fx.Graph()
        self.nodes: dict[str, fx.Node] = {}

    def read(self, plain: Mapping[str, Any], input: InputSpec) -> Program:
        if len(plain["nodes"]) > MAX_NODES:
            raise InputError(f"its graph has {len(plain['nodes'])} nodes; at most {MAX_NODES} are read")
        for item in plain["nodes"]:
            name = str(item["name"])
            if not NAME.fullmatch(name) or name in self.nodes:
                raise InputError(
                    f"its graph has a node called {name[:50]!r}: no identifier, or one that was there before"
                )
            if "weight" in item:
                self.nodes[name] = self.graph.create_node("get_attr", self._weight(str(item["weight"])), name=name)
            elif "call" in item:
                self.nodes[name] = self._call(name, item)
            else:
                self.nodes[name] = self.graph.placeholder(IMAGE)
        outputs = self._decode(plain["outputs"])
        if not isinstance(outputs, dict) or not outputs:
            raise InputError("its graph has no outputs by task")
        if not all(isinstance(leaf, fx.Node) for leaf in pytree.tree_leaves(outputs)):
            raise InputError("its graph has outputs that it does not compute")
        self.graph.output(outputs)
        self.graph.lint()
        if len(self.graph.find_nodes(op="placeholder")) != 1:
            raise InputError("its graph must have one input, the picture")
        used = {str(node.target) for node in self.graph.find_nodes(op="get_attr")}
        trainable = frozenset(str(name) for name in plain["trainable"]) & used
        self._check_weights(used, trainable)
        return Program(self.graph, {name: self.weights[name] for name in used}, trainable, input)

    def _weight(self, name: str) -> str:
        if name not in self.weights:
            raise InputError(f"its graph reads a weight {name[:50]!r} that is not in the file")
        if not is_weight_name(name):
            raise InputError(f"its graph reads a weight {name[:50]!r}; no module can have an attribute of that name")
        return name

    def _check_weights(self, used: Collection[str], trainable: Collection[str]) -> None:
        homes = {name[:end] for name in used for end, letter in enumerate(name) if letter == "."}
        for name in homes & set(used):
            raise InputError(f"its graph reads a weight {name[:50]!r} and others that lie in a module of that name")
        for name in trainable:
            if not self.weights[name].is_floating_point():
                raise InputError(f"its weight {name[:50]!r} is to be trained, but holds whole numbers")

    def _call(self, name: str, item: Mapping[str, Any]) -> fx.Node:
        target = _target(str(item["call"]))
        args = [self._decode(arg) for arg in item["args"]]
        kwargs = {str(key): self._decode(value) for key, value in item.get("kwargs", {}).items()}
        _by_position(target, args, kwargs)
        _check_settings(target, args, kwargs)
        return self.graph.create_node("call_function", target, tuple(args), kwargs, name=name)

    def _decode(self, item: Any) -> Any:
        if item is None or isinstance(item, (bool, int, float)):
            return item
        if isinstance(item, str):
            if not TEXT.fullmatch(item):
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
        if kind == "memory_format":
            return MEMORY_FORMATS[value]
        if kind == "float":
            return float(value)
        if kind == "tuple":
            return tuple(self._decode(part) for part in value)
        if kind == "dict":
            if not all(isinstance(key, str) for key in value):
                raise ValueError("a key that is no text")
            return {key: self._decode(part) for key, part in value.items()}
        raise ValueError(f"an argument of unknown kind {kind!r}")


SETTINGS = {"ScalarType": torch.dtype, "MemoryFormat": torch.memory_format, "Layout": torch.layout}
"""Kinds of arguments for which operators take whole numbers, too; one that stands for nothing crashes them."""


def _check_settings(target: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    arguments = getattr(getattr(target, "_schema", None), "arguments", ())
    given = {**{argument.name: value for argument, value in zip(arguments, args, strict=False)}, **kwargs}
    for argument in arguments:
        value = given.get(argument.name)
        for kind, expected in SETTINGS.items():
            if kind in str(argument.real_type) and value is not None and not isinstance(value, expected):
                raise InputError(f"its graph calls {target} with {argument.name} {value!r:.50}; expected a {kind}")


def _encode(item: Any) -> Any:
    if isinstance(item, fx.Node):
        return {"node": item.name}
    if item is None or isinstance(item, (bool, int, str)):
        return item
    if isinstance(item, float):
        return item if math.isfinite(item) else {"float": str(item)}  # JSON has no infinity
    if isinstance(item, torch.dtype):
        return {"dtype": str(item).removeprefix("torch.")}
    if isinstance(item, torch.memory_format):
        return {"memory_format": str(item).removeprefix("torch.")}
    if isinstance(item, dict) and all(isinstance(key, str) for key in item):
        return {"dict": {key: _encode(part) for key, part in item.items()}}
    if isinstance(item, tuple) and type(item) is tuple:
        return {"tuple": [_encode(part) for part in item]}
    if isinstance(item, (list, tuple)):
        return [_encode(part) for part in item]
    raise InputError(f"{item!r} in its graph cannot be saved; a saved graph holds numbers, modes and dicts by text")


def _by_position(target: Any, args: list[Any], kwargs: dict[str, Any]) -> None:
    """Move the arguments that a call names, but need not, to the positions where readers of graphs look for them."""
    schema = getattr(target, "_schema", None)
    by_position = [argument for argument in schema.arguments if not argument.kwarg_only] if schema else []
    last = max((place for place, argument in enumerate(by_position) if argument.name in kwargs), default=-1)
    for argument in by_position[len(args) : last + 1]:
        args.append(kwargs.pop(argument.name, argument.default_value))


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
        "gatedeploy.blend.default",
    )
    function = getattr(getattr(getattr(torch.ops, namespace), packet), overload, None) if allowed and overload else None
    if not isinstance(function, torch._ops.OpOverload) or function._schema.is_mutable:
        raise InputError(
            f"its graph calls {name[:80]!r}, which is not among the operators that a saved network may use "
            "(gatedeploy.program_json.OPERATORS)"
        )
    return function
