"""Turn a program into an ordinary network: a `torch.fx.GraphModule` of `torch.nn` modules."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import fx, nn

from gatedeploy.program import Program, arguments_of
from gatedeploy.shapes import shapes_of

aten = torch.ops.aten
CONVOLUTIONS: dict[Any, Any] = {
    **{aten.conv1d.default: nn.Conv1d, aten.conv2d.default: nn.Conv2d, aten.conv3d.default: nn.Conv3d},
    **{aten.conv1d.padding: nn.Conv1d, aten.conv2d.padding: nn.Conv2d, aten.conv3d.padding: nn.Conv3d},
}
BATCH_NORMS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
LAYERS = frozenset((*CONVOLUTIONS, aten.linear.default, aten.batch_norm.default))
ROLES = ("weight", "bias", "running_mean", "running_var")
"""What layers call their weights, in their modules and in the schemas of their functions alike."""


def network(program: Program) -> fx.GraphModule:
    """A plain network that computes `program`, in evaluation mode.

    Convolutions, linear layers and batch norms are `torch.nn` modules, named as their weights are; a layer that is
    called twice is one module. Everything else stays a function call. The weights are used, not copied, so the
    network's state dict holds the program's weights under their names.
    """
    layers = _Layers(program)
    root = nn.Module()
    for home in sorted(layers.modules, key=lambda name: name.count(".")):  # a layer before those that lie inside it
        _place(root, home, layers.modules[home])
    read = {other for node in program.graph.nodes for other in _reads(node, layers)}
    graph = fx.Graph()
    values: dict[fx.Node, fx.Node] = {}
    for node in program.graph.nodes:
        if node in layers.home_of:
            values[node] = graph.call_module(layers.home_of[node], tuple(values[data] for data in _reads(node, layers)))
        elif node.op != "get_attr":
            values[node] = graph.node_copy(node, values.__getitem__)
        elif node in read:
            layers.hold(root, str(node.target))
            values[node] = graph.get_attr(str(node.target))
    return fx.GraphModule(root, graph, class_name="Network").eval()


@dataclass(frozen=True)
class _Layer:
    """A call of a function whose weights lie in one place, under a module's names for them."""

    home: str
    target: Any
    roles: tuple[str, ...]
    settings: dict[str, Any]


class _Layers:
    """The modules that a program's calls amount to.

    Attributes:
        modules: by name.
        home_of: the name of the module that says exactly what a call says; calls that no module says are not in it.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.modules: dict[str, nn.Module] = {}
        self.home_of: dict[fx.Node, str] = {}
        self._layers: dict[str, _Layer] = {}
        self._held: set[str] = set()
        self._below = _below(program.weights)
        for node in program.graph.nodes:
            layer = _layer(node)
            if layer is not None and (self._layers.get(layer.home) == layer or self._make(layer, node)):
                self.home_of[node] = layer.home

    def hold(self, root: nn.Module, name: str) -> None:
        """Hang a weight that a function call reads into the tree of modules, unless a layer holds it already."""
        if name not in self._held:
            home, _, leaf = name.rpartition(".")
            self._assign(_container(root, home.split(".") if home else []), leaf, name)

    def _make(self, layer: _Layer, node: fx.Node) -> bool:
        """Whether a module could be made for `layer`: its place is free, and it says exactly the same."""
        module = None if layer.home in self._layers else self._module(layer, node)
        # A module has attributes of its own, even a bias that it does not use: nothing else may be called so.
        if module is None or any(hasattr(module, part) for part in self._below[layer.home] - set(layer.roles)):
            return False
        for role in ROLES:
            if role in layer.roles:
                self._assign(module, role, f"{layer.home}.{role}")
            elif hasattr(module, role):
                setattr(module, role, None)
        self._layers[layer.home], self.modules[layer.home] = layer, module
        return True

    @cached_property
    def _shapes(self) -> dict[fx.Node, Any]:
        return shapes_of(self.program)

    def _module(self, layer: _Layer, node: fx.Node) -> nn.Module | None:
        with torch.device("meta"):  # the weights come later
            if layer.target is aten.batch_norm.default:
                return _batch_norm(layer, self._shapes[node])
            shape = self.program.weights[f"{layer.home}.weight"].shape
            if layer.target is aten.linear.default:
                return nn.Linear(shape[1], shape[0], bias="bias" in layer.roles) if len(shape) == 2 else None
            return _convolution(layer, shape)

    def _assign(self, module: nn.Module, role: str, name: str) -> None:
        module._parameters.pop(role, None)
        module._buffers.pop(role, None)
        weight = self.program.weights[name]
        if name in self.program.trainable:
            module.register_parameter(role, nn.Parameter(weight))
        else:
            module.register_buffer(role, weight)
        self._held.add(name)


def _layer(node: fx.Node) -> _Layer | None:
    if node.target not in LAYERS:
        return None
    settings = arguments_of(node)
    data = settings.pop("input")
    weights = {role: settings.pop(role) for role in ROLES if settings.get(role) is not None}
    if any(getattr(weight, "op", "") != "get_attr" for weight in weights.values()):
        return None
    places = {role: str(weight.target).rpartition(".") for role, weight in weights.items()}
    homes = {home for home, _, _ in places.values()}
    if len(homes) != 1 or "" in homes or any(leaf != role for role, (_, _, leaf) in places.items()):
        return None
    if not set(node.all_input_nodes) <= {data, *weights.values()}:  # a setting that depends on the picture's size
        return None
    return _Layer(homes.pop(), node.target, tuple(weights), settings)


def _batch_norm(layer: _Layer, shape: tuple[int, ...]) -> nn.Module | None:
    """The norm in evaluation mode: by its statistics, or by those of the batch if it has none."""
    tracks = "running_mean" in layer.roles
    kind = BATCH_NORMS.get(len(shape))
    if kind is None or tracks == layer.settings["training"] or tracks != ("running_var" in layer.roles):
        return None
    norm: nn.Module = kind(
        shape[1],
        layer.settings["eps"],
        layer.settings["momentum"],
        affine="weight" in layer.roles or "bias" in layer.roles,
        track_running_stats=tracks,
    )
    if tracks:
        norm.num_batches_tracked = torch.zeros((), dtype=torch.int64, device="cpu")
    return norm


def _convolution(layer: _Layer, shape: tuple[int, ...]) -> nn.Module:
    rows, columns, *kernel = shape
    groups = layer.settings["groups"]
    settings = {key: _size(layer.settings[key]) for key in ("stride", "padding", "dilation")}
    kind = CONVOLUTIONS[layer.target]
    convolution: nn.Module = kind(
        columns * groups, rows, tuple(kernel), groups=groups, bias="bias" in layer.roles, **settings
    )
    return convolution


def _size(size: Any) -> Any:
    """ATen takes one number, or a list of one, for all dimensions; modules take a number."""
    if isinstance(size, (int, str)):
        return size
    return size[0] if len(size) == 1 else tuple(size)


def _reads(node: fx.Node, layers: _Layers) -> Iterator[fx.Node]:
    """The nodes that the network reads where the program has `node`; a module has its weights in itself."""
    if node in layers.home_of:
        yield arguments_of(node)["input"]
    else:
        yield from node.all_input_nodes


def _below(names: Iterable[str]) -> dict[str, set[str]]:
    """What hangs right below each name that is the beginning of others."""
    below: dict[str, set[str]] = defaultdict(set)
    for name in names:
        parts = name.split(".")
        for depth in range(1, len(parts)):
            below[".".join(parts[:depth])].add(parts[depth])
    return below


def _place(root: nn.Module, name: str, module: nn.Module) -> None:
    """Hang `module` into the tree under a dotted name."""
    *homes, leaf = name.split(".")
    _container(root, homes).add_module(leaf, module)


def _container(root: nn.Module, homes: Iterable[str]) -> nn.Module:
    """The module under a dotted name, made with all above it where it is missing."""
    for home in homes:
        if home not in root._modules:
            root.add_module(home, nn.Module())
        root = root.get_submodule(home)
    return root
