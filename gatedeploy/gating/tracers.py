"""Two tracers of `torch.fx` for a backbone, one for any picture and one that knows the example's.

The first records what the backbone does with its input without knowing anything of it, so a condition on a shape stops
it. The second carries a tensor without data along with every value: it knows all sizes but the batch, and Python code
that computes with these runs as it would for a picture of that size.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import (
    DimDynamic,
    ShapeEnv,
    StatelessSymbolicContext,
    free_symbols,
    statically_known_true,
)
from torch.fx.proxy import TraceError
from torch.utils import _pytree as pytree

from gatedeploy.gating.functional import with_entries
from gatedeploy.gating.surroundings import Surroundings, functions_recorded
from gatedeploy.gating.written_out import written_out
from gatedeploy.shapes import silent

ANY_BATCH = 5
"""A batch size that no network asks for."""
PLAIN = (bool, int, float, str, torch.dtype, torch.device, torch.layout, type(None))
"""Values that a graph holds as they are."""

SIZED_FUNCTIONS = ("zeros", "ones", "empty", "rand", "randn", "full")
SIZED_METHODS = ("expand", "repeat", "view", "reshape", "new_zeros", "new_ones", "new_empty")

Leaf = str | type[nn.Module]


class Tracer(fx.Tracer):
    """Traces `forward` with its first parameter, remembers in which module it is, and does not look into some."""

    def __init__(self, leaves: Sequence[Leaf]) -> None:
        super().__init__()
        self.leaves = leaves
        self.inside: list[str] = []

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Also what was named, and not what is written out."""
        if any(matches(leaf, m, module_qualified_name) for leaf in self.leaves):
            return True
        return written_out(m) is None and super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        """Where it is, is noted in `inside`."""
        path, written = self.path_of_module(m), written_out(m)
        self.inside.append(path)

        def follow(*args: Any, **kwargs: Any) -> Any:
            followed = NotImplemented if written is None else written(m, *args, **kwargs)
            whole = followed is NotImplemented
            return self.create_proxy("call_module", path, args, kwargs) if whole else followed

        result = super().call_module(m, forward if written is None else follow, args, kwargs)
        self.inside.pop()  # not reached after an error: what is left tells where it was
        return result

    def create_args_for_root(self, root_fn: Any, is_module: bool, concrete_args: Any = None) -> tuple[Any, list[Any]]:
        """The picture alone: further parameters take their defaults."""
        return root_fn, [self.root, self.create_proxy("placeholder", "image", (), {})]

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """One whose entries can be written."""
        return _Writable(node, self)

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        """It remembers whether gradients flow through it."""
        self.surroundings.check()
        node = super().create_node(*args, **kwargs)
        node.meta["no_grad"] = not torch.is_grad_enabled()
        return node

    def trace(self, root: Any, concrete_args: Any = None) -> fx.Graph:
        """Also where the size of the batch is given to what takes numbers only."""
        self.surroundings = Surroundings()
        with ExitStack() as stack:
            stack.enter_context(_sizes_given_to(SIZED_FUNCTIONS, torch, self))
            stack.enter_context(_sizes_given_to(SIZED_METHODS, Tensor, self))
            stack.enter_context(functions_recorded(self))
            graph = super().trace(root, concrete_args)
        self.surroundings.check()
        return graph


@contextmanager
def _sizes_given_to(names: Sequence[str], home: Any, tracer: Tracer) -> Iterator[None]:
    """Record calls of these functions that are given a size as a proxy, as `torch.zeros(x.shape[0], 8)` is.

    Python code without tensors never asks a proxy what to do, so these functions are replaced for the time being.
    """

    def recording(name: str, function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            if not any(isinstance(part, fx.Proxy) for part in pytree.tree_leaves((args, kwargs))):
                return function(*args, **kwargs)
            kind, target = ("call_method", name) if home is Tensor else ("call_function", function)
            return tracer.create_proxy(kind, target, args, kwargs)

        return call

    before = {name: getattr(home, name) for name in names}
    try:
        for name, function in before.items():
            setattr(home, name, recording(name, function))
        yield
    finally:
        for name, function in before.items():
            setattr(home, name, function)


class _Writable(fx.Proxy):
    def __setitem__(self, index: Any, value: Any) -> None:
        self.tracer.create_proxy("call_function", with_entries, (self, index, value), {})


def is_hidden(function: Any) -> bool:
    """Whether it is somebody else's Python function: torch.fx takes these for an operator only by `torch.fx.wrap`."""
    home = str(getattr(function, "__module__", "")).partition(".")[0]
    return isinstance(function, FunctionType) and home not in ("torch", "gatedeploy")


def matches(leaf: Leaf, module: nn.Module, name: str) -> bool:
    """Whether `leaf` is this module's name or one of its classes."""
    return leaf == name if isinstance(leaf, str) else isinstance(module, leaf)


class ShapeTracer(Tracer):
    """Knows what every value is, but for its numbers: shapes are those for `example`, of a batch of any size."""

    proxy_buffer_attributes = True

    def __init__(self, leaves: Sequence[Leaf], example: Tensor) -> None:
        super().__init__(leaves)
        self.mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
        sizes = [DimDynamic.DYNAMIC] + [DimDynamic.STATIC] * (example.ndim - 1)
        free: Any = StatelessSymbolicContext(dynamic_sizes=sizes)
        batch = example[:1].expand(ANY_BATCH, *example.shape[1:])
        self.image = self.mode.from_tensor(batch, symbolic_context=free)
        self.values: dict[fx.Node, Any] = {}
        self.computing = False

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """One that can be asked, too."""
        return _Known(node, self)

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *rest: Any, **named: Any) -> Any:
        """A proxy, or the value itself where it holds no tensor and no size of the batch.

        What others have put around functions to hide them from torch.fx is looked into.
        """
        if kind == "call_function" and is_hidden(target) and not self.computing:
            return target(*args, **kwargs)
        made: Any = super().create_proxy(kind, target, args, kwargs, *rest, **named)
        value = self.known(made.node)
        if isinstance(value, torch.Size):
            return tuple(made[dim] for dim in range(len(value)))
        if isinstance(value, PLAIN):
            self.graph.erase_node(made.node)
            return value
        return made

    def to_bool(self, obj: fx.Proxy) -> bool:
        """The answer for every size of the batch."""
        value = self.known(obj.node)
        if isinstance(value, torch.SymBool):
            if statically_known_true(value):
                return True
            if statically_known_true(torch.sym_not(value)):  # type: ignore[no-untyped-call]
                return False
            raise TraceError("what is computed depends on the size of the batch")
        return bool(value)

    def iter(self, obj: Any) -> Iterator[Any]:
        """As many entries as there are."""
        return iter([obj[index] for index in range(len(obj))])

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        """Recorded, unless it is called to know what it returns."""
        return forward(*args, **kwargs) if self.computing else super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, fx.Proxy]) -> Any:
        """Likewise."""
        return attr_val if self.computing else super().getattr(attr, attr_val, parameter_proxy_cache)

    def known(self, node: fx.Node) -> Any:
        """The node's value."""
        if node not in self.values:
            self.values[node] = self._value(node)
        return self.values[node]

    def _value(self, node: fx.Node) -> Any:
        if node.op == "placeholder":
            return self.image
        args, kwargs = fx.map_arg((node.args, node.kwargs), self.known)
        self.computing = True
        try:
            with torch.no_grad(), self.mode, enable_python_dispatcher(), silent():
                value = self._computed(node, args, kwargs)
        finally:
            self.computing = False
        if not free_symbols(self.image.shape[0]):
            raise TraceError(f"{node.target} asks for the size of the batch, which must stay open")
        return value

    def _computed(self, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if node.op == "call_function":
            return node.target(*args, **kwargs)  # type: ignore[operator]
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        path, _, name = str(node.target).rpartition(".")
        found = getattr(self.root.get_submodule(path), name)
        if node.op == "get_attr":
            return self._without_data(found) if isinstance(found, Tensor) else found
        # What the module writes, statistics above all, it writes into tensors without data.
        state = itertools.chain(found.named_parameters(), found.named_buffers())
        copies = {name: self._without_data(tensor) for name, tensor in state}
        return torch.func.functional_call(found, copies, args, kwargs)

    def _without_data(self, tensor: Tensor) -> Tensor:
        return self.mode.from_tensor(tensor, static_shapes=True)


class _Known(_Writable):
    """A proxy of which one can ask what a `ShapeTracer` knows."""

    tracer: ShapeTracer

    def __getattr__(self, k: str) -> Any:
        found = getattr(self.tracer.known(self.node), k)
        return (
            super().__getattr__(k)
            if callable(found)
            else self.tracer.create_proxy("call_function", getattr, (self, k), {})
        )

    def __index__(self) -> int:
        raise TraceError("the size of the batch, which must stay open, is asked for as a number")

    def __len__(self) -> int:
        value = self.tracer.known(self.node)
        if isinstance(value, Tensor) and free_symbols(value.shape[0]):
            raise TraceError("len() of a batch, whose size must stay open, is asked for; use x.shape[0]")
        return len(value)
