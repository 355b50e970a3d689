"""Read a backbone as an fx graph, once in training mode and once in evaluation mode.

Both are needed: fx bakes `self.training` into functional calls, so a graph traced in training mode would drop
out for ever, and one traced in evaluation mode never.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree as pytree

from gatedeploy.errors import InputError, closest, first_line
from gatedeploy.gating.functional import make_functional
from gatedeploy.gating.tracers import Leaf, ShapeTracer, Tracer, is_hidden, matches
from gatedeploy.gating.trial import place_of
from gatedeploy.modes import evaluating
from gatedeploy.shapes import silent

Make = Callable[[Sequence[Leaf]], Tracer]
Mode = Literal["training", "evaluation"]


@dataclass(frozen=True)
class Template:
    """One backbone, traced: the modules and the two graphs that call them.

    A node carries the shape of its value in `meta["shape"]`, None where it is no tensor, and the name of the node of
    `evaluation` that does the same in `meta["name"]`; nodes of `evaluation` the dimensions that grow with the batch, in
    `meta["batch"]`. Without `any_size` they serve pictures as large as the example.
    """

    root: nn.Module
    training: fx.Graph
    evaluation: fx.Graph
    any_size: bool


def trace(backbone: nn.Module, example_input: Tensor, leaves: Sequence[Leaf] = ()) -> Template:
    """Trace a deep copy of `backbone`, make it functional, and note every value's shape.

    What is traced serves pictures of any size, unless the backbone asks for sizes in Python: then those of the example.

    Args:
        backbone: the network; it takes the example.
        example_input: (batch, channels, height, width).
        leaves: modules that are not looked into, by name or class.

    Raises:
        InputError: fx cannot trace the backbone, it writes in place into a view, what is traced computes something
            else, or a leaf does not exist.
    """
    _check_leaves(backbone, leaves)
    by_shape = partial(ShapeTracer, example=example_input)
    try:
        whole = _traced_by(Tracer, backbone, example_input, leaves)
    except InputError:
        return _traced_by(by_shape, backbone, example_input, leaves)
    if not _hides_layers(whole):
        return whole
    try:
        return _traced_by(by_shape, backbone, example_input, leaves)
    except InputError:
        return whole


def _hides_layers(template: Template) -> bool:
    """Whether a function that is hidden from torch.fx reads weights."""
    weights = dict(template.root.named_parameters())
    return any(
        is_hidden(node.target) and any(input.target in weights for input in node.all_input_nodes)
        for node in template.evaluation.nodes
    )


def _check_leaves(backbone: nn.Module, leaves: Sequence[Leaf]) -> None:
    modules = {name: module for name, module in backbone.named_modules() if name}
    for leaf in leaves:
        if not any(matches(leaf, module, name) for name, module in modules.items()):
            what = f"{leaf!r}{closest(leaf, list(modules))}" if isinstance(leaf, str) else f"of class {leaf.__name__}"
            raise InputError(f"leaf_modules: the backbone has no module {what}")


def _traced_by(make: Make, backbone: nn.Module, example_input: Tensor, leaves: Sequence[Leaf]) -> Template:
    root = copy.deepcopy(backbone)
    training, evaluation = (_trace_once(root, mode, make(leaves)) for mode in ("training", "evaluation"))
    make_functional((training, evaluation), root)
    _note_shapes(training, root, "training", example_input)
    _note_shapes(evaluation, root, "evaluation", example_input)
    _match(training, evaluation)
    _note_batch(evaluation, root, example_input)
    _stop_gradients(training)
    _check_buffers(backbone, root, training, example_input)
    _compare(backbone, root, evaluation, example_input)
    return Template(root, training, evaluation, any_size=make is Tracer)


def _in_mode(root: nn.Module, mode: Mode) -> nn.Module:
    """A copy of `root` in this mode, to run code that may leave something behind in it."""
    trial = copy.deepcopy(root)
    trial.train(mode == "training")
    return trial


def _trace_once(root: nn.Module, mode: Mode, tracer: Tracer) -> fx.Graph:
    """The graph in this mode, its constants put into `root`."""
    trial = _in_mode(root, mode)
    given = dict(trial.named_buffers())
    try:
        with torch.enable_grad():  # so that a stretch without gradients is the backbone's own
            graph = tracer.trace(trial)
    except Exception as error:  # tracing runs the user's own code, which may raise anything
        module = f", in its module {tracer.inside[-1]}" if tracer.inside else ""
        leaf = _leaf(root, tracer.inside[-1]) if tracer.inside else "a module of its own and leaf_modules"
        raise InputError(
            f"torch.fx cannot trace the backbone {type(root).__name__}{module}{place_of(error)}: "
            f"{first_line(error)}. "
            f"Rewrite that line with functions of tensors, or gate around it with {leaf}"
        ) from error
    for node in reversed(list(graph.nodes)):  # a picture that passes them is not told
        if node.target is torch._assert:
            graph.erase_node(node)
    for node in graph.nodes:
        name = str(node.target)
        if node.op == "get_attr" and (name.startswith("_tensor_constant") or name in given):
            path, _, last = name.rpartition(".")
            now = getattr(trial.get_submodule(path), last)
            if not isinstance(now, Tensor):
                raise _forgetful(root, name)
            if now is not given.get(name):  # computed from no input; as a buffer it goes where the network goes
                node.target = f"_{mode}_{name.replace('.', '_')}"
                root.register_buffer(node.target, now, persistent=False)
    return graph


def _leaf(root: nn.Module, name: str) -> str:
    kind = type(root.get_submodule(name)).__name__
    return f"leaf_modules=[{name!r}], or leaf_modules=[{kind}] for all of its class"


def _match(training: fx.Graph, evaluation: fx.Graph) -> None:
    """Note for each node of `training` the name of the node of `evaluation` that does the same, None where none does.

    Names alone do not tell: fx numbers calls, so where training runs more of them its fifth `relu` may be the third.
    A node does the same that calls the same of the same. Where training alone does something on the way, such as to
    drop a path, what it makes of a tensor stands for that tensor.
    """
    calls = [
        Counter(node.target for node in graph.nodes if node.op == "call_module") for graph in (training, evaluation)
    ]
    once = {target for target in calls[0] if calls[0][target] == calls[1][target] == 1}
    waiting: dict[Hashable, list[str]] = {}
    for node in evaluation.nodes:
        node.meta["name"] = node.name
        waiting.setdefault(_does(node, once, lambda input: input.name), []).append(node.name)
    stands: dict[fx.Node, str | None] = {}
    for node in training.nodes:
        found = waiting.get(_does(node, once, stands.get))
        node.meta["name"] = found.pop(0) if found else None
        before = (stands[input] for input in node.all_input_nodes if stands[input] is not None)
        stands[node] = node.meta["name"] or next(before, None)


def _does(node: fx.Node, once: Collection[fx.node.Target], name: Callable[[fx.Node], str | None]) -> Hashable:
    """What a node does, told the same way in both modes."""
    if node.target in once:
        return node.target
    target = str(node.target).removeprefix("_training").removeprefix("_evaluation")
    named = {key: argument for key, argument in node.kwargs.items() if key != "dropout_p"}
    given = fx.map_arg((node.args, named), name)
    # A flag may be that of the mode, as the probability is with which attention is dropped.
    return node.op, target, repr(given).replace("True", "False"), node.meta["shape"]


def _note_batch(graph: fx.Graph, root: nn.Module, example_input: Tensor) -> None:
    """Note in `meta["batch"]` along which dimensions a value grows with the batch."""
    before = {node: node.meta["shape"] for node in graph.nodes}
    larger = example_input[:1].expand(len(example_input) + 1, *example_input.shape[1:])
    _note_shapes(graph, root, "evaluation", larger)
    for node, shape in before.items():
        sizes = zip(shape or (), node.meta["shape"] or (), strict=True)
        node.meta["batch"] = {dim for dim, (one, other) in enumerate(sizes) if one != other}
        node.meta["shape"] = shape


def _stop_gradients(graph: fx.Graph) -> None:
    """What the backbone computes under `torch.no_grad()` is a constant to those who read it outside."""
    for node in list(graph.nodes):
        readers = [user for user in node.users if not user.meta.get("no_grad")]
        if node.meta.get("no_grad") and node.meta["shape"] is not None and readers:
            with graph.inserting_after(node):
                stopped = graph.call_method("detach", (node,))
            stopped.meta.update(node.meta, name=None)
            node.replace_all_uses_with(stopped, delete_user_cb=readers.__contains__)


def _check_buffers(backbone: nn.Module, root: nn.Module, graph: fx.Graph, example_input: Tensor) -> None:
    """What the backbone remembers in training must be remembered by what was traced, too."""
    traced = _in_mode(root, "training")
    wanted = _written(_in_mode(backbone, "training"), lambda network, image: network(image), example_input)
    kept = _written(traced, lambda network, image: fx.Interpreter(network, graph=graph).run(image), example_input)
    # How many batches a norm has seen is read by nobody, unless it averages over all of them.
    lost = {name for name in wanted - kept if not name.endswith("num_batches_tracked")}
    if lost:
        raise _forgetful(backbone, min(lost))


def _forgetful(backbone: nn.Module, buffer: str) -> InputError:
    module = buffer.rpartition(".")[0]
    leaf = f"leaf_modules=[{module!r}]" if module else "a module of its own and leaf_modules"
    return InputError(
        f"the backbone {type(backbone).__name__} writes its buffer {buffer!r} in training, which torch.fx does not "
        f"see; gate around what does it with {leaf}"
    )


@torch.no_grad()
def _written(network: nn.Module, run: Callable[[nn.Module, Tensor], Any], example_input: Tensor) -> set[str]:
    """The buffers that each run writes, on tensors without data; `network` is of no use afterwards."""
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        places = [(path, module, name) for path, module in network.named_modules() for name in module._buffers]
        for _, module, name in places:
            buffer = module._buffers[name]
            module._buffers[name] = None if buffer is None else mode.from_tensor(buffer)
        picture = mode.from_tensor(example_input)
        run(network, picture)  # the first time one may be made for this size of pictures
        before = [_state(module._buffers[name]) for _, module, name in places]
        run(network, picture)
        after = [_state(module._buffers[name]) for _, module, name in places]
        changed = [place for place, one, other in zip(places, before, after, strict=True) if one != other]
        return {f"{path}.{name}".removeprefix(".") for path, _, name in changed}


def _state(buffer: Tensor | None) -> tuple[int, int] | None:
    """Which tensor it is, and how often it was written."""
    return None if buffer is None else (id(buffer), buffer._version)


class _ShapeNotes(fx.Interpreter):
    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        n.meta["shape"] = tuple(result.shape) if isinstance(result, Tensor) else None
        return result


def _note_shapes(graph: fx.Graph, root: nn.Module, mode: Mode, example_input: Tensor) -> None:
    notes = _ShapeNotes(_in_mode(root, mode), graph=graph)
    try:
        # Fake tensors have shapes and no data: a large backbone is not computed just to look at it.
        with torch.no_grad(), silent(), FakeTensorMode(allow_non_fake_inputs=True) as fake:
            notes.run(fake.from_tensor(example_input))
    except Exception as error:  # the user's own network runs here
        shape = tuple(example_input.shape)
        raise InputError(
            f"the backbone does not take an input of shape {shape} in {mode} mode: {first_line(error)}"
        ) from error


@torch.no_grad()
def _compare(backbone: nn.Module, root: nn.Module, graph: fx.Graph, example_input: Tensor) -> None:
    """What was traced must compute what the backbone computes, here for one picture of noise."""
    picture = example_input[:1]
    if picture.is_floating_point():
        noise = torch.randn(picture.shape, generator=torch.Generator().manual_seed(0))
        picture = noise.to(picture.device, picture.dtype)
    with evaluating(backbone):
        expected = _tensors(backbone(picture))
    got = _tensors(fx.Interpreter(_in_mode(root, "evaluation"), graph=graph).run(picture))
    # The same operators run in the same order; only kernels that write in place may round differently.
    same = len(got) == len(expected) and all(
        one.shape == other.shape and _close(one.double(), other.double())
        for one, other in zip(got, expected, strict=True)
    )
    if not same:
        raise InputError(
            f"what torch.fx traces of the backbone {type(backbone).__name__} is not what it computes: its Python code "
            "asks for what is not there while it is traced, such as isinstance(x, Tensor), or writes in place into a "
            "part of a tensor that has a name of its own. Write it otherwise, or gate around its module: leaf_modules"
        )


def _tensors(structure: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(structure) if isinstance(leaf, Tensor)]


def _close(got: Tensor, expected: Tensor) -> bool:
    scale = float(expected.abs().max()) if expected.numel() else 0.0
    return torch.allclose(got, expected, rtol=1e-3, atol=1e-3 * scale, equal_nan=True)
