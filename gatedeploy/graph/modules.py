"""Turn a program into an ordinary network: a `torch.fx.GraphModule` of `torch.nn` modules."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

from gatedeploy.graph.shapes import shapes_of
from gatedeploy.program import Program

aten = torch.ops.aten
CONVOLUTIONS: dict[Any, Any] = {
    **{aten.conv1d.default: nn.Conv1d, aten.conv2d.default: nn.Conv2d, aten.conv3d.default: nn.Conv3d},
    **{aten.conv1d.padding: nn.Conv1d, aten.conv2d.padding: nn.Conv2d, aten.conv3d.padding: nn.Conv3d},
}
BATCH_NORMS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}


def network(program: Program) -> fx.GraphModule:
    """A plain network that computes `program`, in evaluation mode.

    Convolutions, linear layers and batch norms are `torch.nn` modules, named as their weights are; a layer that is
    called twice is one module. Everything else stays a function call. The weights are used, not copied, so the
    network's state dict holds the program's weights under their names.
    """
    root = nn.Module()
    layers = _Layers(program, root)
    module_of = {node: layers.module_name(node) for node in program.graph.nodes if node.op == "call_function"}
    graph = fx.Graph()
    values: dict[Any, Any] = {}
    for node in program.graph.nodes:
        if node.op == "get_attr":
            if any(module_of.get(user) is None for user in node.users):
                _register(root, str(node.target), program)
                values[node] = graph.get_attr(str(node.target))
        elif module_of.get(node) is not None:
            values[node] = graph.call_module(str(module_of[node]), (values[node.args[0]],))
        else:
            values[node] = graph.node_copy(node, values.__getitem__)
    return fx.GraphModule(root, graph, class_name="CollapsedNetwork").eval()


class _Layers:
    """Makes the modules that a program's calls amount to."""

    def __init__(self, program: Program, root: nn.Module) -> None:
        self.program = program
        self.root = root
        self.made: dict[str, object] = {}
        self.shapes: dict[Any, Any] | None = None

    def module_name(self, node: fx.Node) -> str | None:
        """The module that `node` can call, None if none says exactly the same."""
        if node.target not in CONVOLUTIONS and node.target not in (aten.linear.default, aten.batch_norm.default):
            return None
        roles = ("weight", "bias", "running_mean", "running_var")[: 4 if node.target is aten.batch_norm.default else 2]
        given = {role: arg for role, arg in zip(roles, node.args[1:], strict=False) if arg is not None}
        names = {role: str(getattr(arg, "target", "")) for role, arg in given.items()}
        homes = {name.rpartition(".")[0] for name in names.values()}
        if len(homes) != 1 or any(name.rpartition(".")[2] != role for role, name in names.items()):
            return None
        (home,) = homes
        if not home or any(getattr(arg, "op", "") != "get_attr" for arg in given.values()):
            return None
        settings = (node.target, repr(node.args[len(roles) + 1 :]), tuple(names))
        if self.made.setdefault(home, settings) != settings:
            return None
        if not _has(self.root, home):
            module = self._build(node, {role: self.program.weights[name] for role, name in names.items()})
            _place(self.root, home, module)
        return home

    def _build(self, node: fx.Node, constants: dict[str, Tensor]) -> nn.Module:
        with torch.device("meta"):
            if node.target is aten.batch_norm.default:
                module = self._batch_norm(node, constants)
            elif node.target is aten.linear.default:
                rows, columns = constants["weight"].shape
                module = nn.Linear(columns, rows, bias="bias" in constants)
            else:
                module = _convolution(node, constants)
        for role, tensor in constants.items():
            name = f"{str(node.args[1].target).rpartition('.')[0]}.{role}"  # type: ignore[union-attr]
            _assign(module, role, tensor, trainable=name in self.program.trainable)
        return module

    def _batch_norm(self, node: fx.Node, constants: dict[str, Tensor]) -> nn.Module:
        momentum: Any = node.args[6]
        epsilon: Any = node.args[7]
        self.shapes = self.shapes or shapes_of(self.program)
        kind = BATCH_NORMS[len(self.shapes[node])]
        norm: nn.Module = kind(len(constants["running_mean"]), epsilon, momentum, affine="weight" in constants)
        norm.num_batches_tracked = torch.zeros((), dtype=torch.int64, device="cpu")
        return norm


def _convolution(node: fx.Node, constants: dict[str, Tensor]) -> nn.Module:
    rest = dict(zip(("stride", "padding", "dilation", "groups"), node.args[3:], strict=False))
    groups: Any = rest.pop("groups", 1)
    rows, columns, *kernel = constants["weight"].shape
    # ATen takes one number, or a list of one, for all dimensions; modules take a number.
    sizes = {
        key: size if isinstance(size, (int, str)) else size[0] if len(size) == 1 else tuple(size)  # type: ignore[arg-type,index]
        for key, size in rest.items()
    }
    kind = CONVOLUTIONS[node.target]
    convolution: nn.Module = kind(
        columns * groups, rows, tuple(kernel), groups=groups, bias="bias" in constants, **sizes
    )
    return convolution


def _assign(module: nn.Module, name: str, tensor: Tensor, trainable: bool) -> None:
    module._parameters.pop(name, None)
    module._buffers.pop(name, None)
    if trainable:
        module.register_parameter(name, nn.Parameter(tensor))
    else:
        module.register_buffer(name, tensor)


def _register(root: nn.Module, name: str, program: Program) -> None:
    """Hang a weight that a function call reads into the tree of modules, unless a layer already holds it."""
    home, _, leaf = name.rpartition(".")
    if not _has(root, home):
        _place(root, home, nn.Module())
    owner = root.get_submodule(home)
    if not hasattr(owner, leaf):
        _assign(owner, leaf, program.weights[name], trainable=name in program.trainable)


def _has(root: nn.Module, name: str) -> bool:
    try:
        root.get_submodule(name)
    except AttributeError:
        return False
    return True


def _place(root: nn.Module, name: str, module: nn.Module) -> None:
    """Hang `module` into the tree under a dotted name, taking over what already hangs below that name."""
    *homes, leaf = name.split(".")
    owner = root
    for home in homes:
        if home not in owner._modules:
            owner.add_module(home, nn.Module())
        owner = owner.get_submodule(home)
    owner.add_module(leaf, module)
