"""Networks whose forward is woven of a traced backbone: a picture in, one prediction per task out."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from torch import Tensor, fx, nn

from gatedeploy.errors import InputError
from gatedeploy.gating.cuts import Place
from gatedeploy.gating.functional import drop_unread
from gatedeploy.gating.placing import checked_parts
from gatedeploy.gating.sites import Site
from gatedeploy.gating.task_network import TaskNetwork
from gatedeploy.gating.trace import Template, trace
from gatedeploy.gating.trial import try_out
from gatedeploy.specs import InputSpec, Task


class WovenNetwork(TaskNetwork):
    """Abstract: whoever derives from it makes modules of a template's, and calls `weave`."""

    def __init__(self, tasks: tuple[Task, ...], input: InputSpec, heads: Mapping[str, nn.Module]) -> None:
        super().__init__(tasks, input, heads)
        self._run: dict[bool, Any] = {}
        self._instead: Callable[[nn.Module, Tensor], dict[str, Tensor]] | None = None
        self._any_size = True

    def weave(self, template: Template, weaver: Callable[[fx.Graph], fx.Graph]) -> None:
        """Let forward run what `weaver` makes of the template's graphs; what these call are modules of this network."""
        self._any_size = template.any_size
        self._run = {
            True: _compiled(weaver(template.training)),
            False: _compiled(weaver(template.evaluation)),
        }

    def weave_training(self, graph: fx.Graph) -> None:
        """Let forward run another graph in training from here on."""
        self._run[True] = _compiled(graph)

    def run_in_training(self, forward: Callable[[nn.Module, Tensor], dict[str, Tensor]] | None) -> None:
        """Let `forward(network, image)` compute in training, which does the same faster; None: what was woven again."""
        self._instead = forward

    def only_this_size(self) -> None:
        """Take pictures of the size of `input` alone, because something in it is made for that size."""
        self._any_size = False

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """`image`: (batch, channels, height, width). Returns one prediction per task."""
        self.check(image)
        if isinstance(image, Tensor) and not self._any_size and tuple(image.shape[1:]) != self.input.shape:
            raise InputError(
                f"it takes pictures {self.input.shape} alone, got {tuple(image.shape[1:])}: something in it is made "
                "for one size, or asks for sizes in Python. Build it with an example of that size, and load the weights"
            )
        run = self._instead if self._instead is not None and self.training else self._run[self.training]
        return cast("dict[str, Tensor]", run(self, image))


def traced(
    backbone: nn.Module,
    tasks: Sequence[Task],
    heads: Mapping[str, nn.Module] | None,
    example_input: Tensor,
    leaf_modules: Sequence[str | type[nn.Module]] = (),
) -> tuple[tuple[Task, ...], dict[str, nn.Module], Template]:
    """Tasks and heads that fit each other, and the backbone's template, tried out.

    Args:
        backbone: any module that `torch.fx` can trace; it is copied, not changed.
        tasks: the questions.
        heads: by task.
        example_input: (batch, channels, height, width).
        leaf_modules: modules that are not looked into, by name or class.

    Raises:
        InputError: the backbone cannot be traced or, once trained, collapsed; or tasks, heads and example do not fit.
    """
    backbone = getattr(backbone, "_orig_mod", backbone)  # that which torch.compile wrapped
    tasks, heads = checked_parts(backbone, tasks, heads, example_input)
    try_out(backbone, [task.name for task in tasks], heads, example_input)
    return tasks, heads, trace(backbone, example_input, leaf_modules)


def require(training: fx.Graph, places: Sequence[Place | Site]) -> None:
    """Raise `InputError` unless training passes the places of evaluation, with as many channels.

    What was learnt there would mean something else.
    """
    shapes = {node.meta["name"]: node.meta.get("shape") for node in training.nodes}
    for place in places:
        what = "the backbone's forward differs between training and evaluation"
        if place.name not in shapes:
            raise InputError(
                f"{what}: {place.name!r} exists only in evaluation; branches need the same places to meet in both"
            )
        shape = shapes[place.name]
        if shape is None or shape[place.axis] != place.channels:
            raise InputError(
                f"{what}: {place.name!r} has {place.channels} channels in evaluation, in training its shape is {shape}"
            )


def copied(woven: fx.Graph, node: fx.Node, home: str, values: Mapping[fx.Node, fx.Node]) -> fx.Node:
    """A template's node in the graph that is woven, its modules and weights those below `home`.

    Args:
        woven: gets the node.
        node: of the template.
        home: where the network has a copy of the template's root.
        values: what stands for the template's nodes.
    """
    made = woven.node_copy(node, values.__getitem__)
    if node.op in ("call_module", "get_attr"):
        made.target = f"{home}.{node.target}"
    made.meta = {}
    return made


def predictions(
    woven: fx.Graph, output: fx.Node, values: Mapping[str, Mapping[fx.Node, fx.Node]]
) -> dict[str, fx.Node]:
    """Calls of `heads.<task>`, by task, on what stands for the features that the backbone returns.

    Args:
        woven: gets the calls.
        output: of the template.
        values: by task, what stands for the template's nodes.
    """
    return {
        task: woven.call_module(f"heads.{task}", (fx.map_arg(output.args[0], own.__getitem__),))
        for task, own in values.items()
    }


def load_branch(branches: nn.Module, branch: str, weights: Mapping[str, Tensor]) -> None:
    """Let one of several copies of a backbone have the weights of another.

    Args:
        branches: the copies, by name.
        branch: which of them.
        weights: the state dict of a backbone.

    Raises:
        InputError: no such branch, or the weights are not those of this backbone.
    """
    names = [name for name, _ in branches.named_children()]
    if branch not in names:
        raise InputError(f"no branch {branch!r}; there are {', '.join(names)}")
    there = branches.get_submodule(branch)
    try:
        copy.deepcopy(there).load_state_dict(weights)  # which takes what fits before it says what does not
    except (RuntimeError, TypeError) as error:
        told = " ".join(str(error).split())
        raise InputError(f"branch {branch}: these are not the weights of its backbone: {told}") from None
    there.load_state_dict(weights)


def _compiled(graph: fx.Graph) -> Any:
    """The graph as a function `forward(self, image)`, a plain function so that networks can be deep-copied.

    What nobody reads is left out: the shared branch of a gated network behind its last site, above all.
    """
    drop_unread(graph)
    graph.lint()
    code = graph.python_code("self")
    scope = dict(code.globals)
    exec(compile(code.src, "<woven network>", "exec"), scope)
    return scope["forward"]
