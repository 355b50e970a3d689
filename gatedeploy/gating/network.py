"""The gated multi-task network: T+1 branches in lockstep (InterroGate section 3)."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from gatedeploy.artifact import ModelInfo
from gatedeploy.errors import InputError, closest
from gatedeploy.gating.layers import ChannelGate, Mix
from gatedeploy.gating.lockstep import weave
from gatedeploy.gating.sites import Site, find_sites
from gatedeploy.gating.trace import trace
from gatedeploy.gating.trial import try_out
from gatedeploy.shapes import check_pictures
from gatedeploy.specs import SHARED, InputSpec, Task, check_tasks


class GatedNetwork(nn.Module):
    """One branch per task and a shared one, each with its own copy of the backbone; made by `gate`.

    Attributes:
        tasks: what it predicts.
        input: the picture it takes.
        sites: where the branches meet.
        branches: the copies of the backbone, by task name and `shared`.
        gates: the `ChannelGate`s, by gate name and task.
        mixes: the `Mix`es, by site.
        heads: the tasks' heads, by task.
    """

    def __init__(
        self,
        tasks: tuple[Task, ...],
        input: InputSpec,
        sites: tuple[Site, ...],
        branches: nn.Module,
        heads: nn.Module,
    ) -> None:
        super().__init__()
        self.tasks = tasks
        self.input = input
        self.sites = sites
        self.branches = branches
        self.heads = heads
        self.gates = nn.Module()
        self.mixes = nn.Module()
        for site in sites:
            if not hasattr(self.gates, site.gate):
                gates = nn.Module()
                for task in tasks:
                    gates.add_module(task.name, ChannelGate(site.channels, site.group, site.axis))
                self.gates.add_module(site.gate, gates)
            if site.mixes:
                self.mixes.add_module(site.name, Mix(len(tasks), site.channels, site.axis))
        self._run: dict[bool, Any] = {}
        self._any_size = True

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """`image`: (batch, channels, height, width). Returns one prediction per task."""
        known = isinstance(image, Tensor)  # torch.fx asks with something that has no shape
        if known and (image.ndim != 4 or image.shape[1] != self.input.channels):
            raise InputError(
                f"expected a batch of pictures (batch, {self.input.channels}, height, width), got {tuple(image.shape)}"
            )
        if known and not self._any_size and tuple(image.shape[1:]) != self.input.shape:
            raise InputError(
                f"the backbone's Python code asks for sizes, so it was gated for pictures {self.input.shape} alone; "
                f"got {tuple(image.shape[1:])}. Gate it with an example of that size, and load the weights into it"
            )
        return cast("dict[str, Tensor]", self._run[self.training](self, image))

    @property
    def info(self) -> ModelInfo:
        """What travels with it."""
        return ModelInfo(self.tasks, self.input)

    def gate(self, site: Site | str, task: str) -> ChannelGate:
        """The gate of `task` at `site`, which may be given by its name."""
        if isinstance(site, str):
            sites = {found.name: found for found in self.sites}
            if site not in sites:
                raise InputError(f"no site {site!r}; there are {', '.join(sites)}{closest(site, list(sites))}")
            site = sites[site]
        if not isinstance(site, Site):
            raise InputError(f"expected a site or its name, got {site!r}; `sites` has them")
        try:
            return cast(ChannelGate, self.get_submodule(f"gates.{site.gate}.{task}"))
        except AttributeError:
            raise InputError(f"no task {task!r}; there are {', '.join(known.name for known in self.tasks)}") from None

    def mix(self, site: Site) -> Mix | None:
        """The mix at `site`, None where the shared branch ends."""
        return cast(Mix, self.get_submodule(f"mixes.{site.name}")) if site.mixes else None

    def gate_parameters(self) -> Iterator[nn.Parameter]:
        """α and β; they have an optimiser of their own (InterroGate supplement B.3)."""
        yield from self.gates.parameters()
        yield from self.mixes.parameters()

    def weight_parameters(self) -> Iterator[nn.Parameter]:
        """Everything else: Φ_t, Ψ and the heads."""
        yield from self.branches.parameters()
        yield from self.heads.parameters()

    def load_branch(self, branch: str, weights: Mapping[str, Tensor]) -> None:
        """Start one branch from the weights of a single-task or pretrained backbone (supplement B.3).

        Args:
            branch: a task's name or `shared`.
            weights: the state dict of the ungated backbone.

        Raises:
            InputError: no such branch, or the weights are not those of this backbone.
        """
        names = [*(task.name for task in self.tasks), SHARED]
        if branch not in names:
            raise InputError(f"no branch {branch!r}; there are {', '.join(names)}")
        there = self.branches.get_submodule(branch)
        try:
            copy.deepcopy(there).load_state_dict(weights)  # which takes what fits before it says what does not
        except (RuntimeError, TypeError) as error:
            told = " ".join(str(error).split())
            raise InputError(f"branch {branch}: these are not the weights of its backbone: {told}") from None
        there.load_state_dict(weights)

    def specific_share(self) -> dict[str, float]:
        """Share of task-specific channels per task, the mean over sites of the mean over channels."""
        shares: dict[str, float] = {}
        for task in self.tasks:
            chosen = [self.gate(site, task.name).chosen().float().mean() for site in self.sites]
            shares[task.name] = float(torch.stack(chosen).mean())
        return shares


def gate(
    backbone: nn.Module,
    tasks: Sequence[Task],
    *,
    example_input: Tensor,
    heads: Mapping[str, nn.Module] | None = None,
    sites: str | Sequence[str] = "auto",
    group: int = 1,
    tie: str | None = None,
    gates: str = "channel",
    leaf_modules: Sequence[str | type[nn.Module]] = (),
) -> GatedNetwork:
    """Make a gated multi-task network of a single-task backbone.

    Args:
        backbone: any module that `torch.fx` can trace; it is copied, not changed.
        tasks: the questions; each gets a branch.
        example_input: (batch, channels, height, width), used for shapes only.
        heads: one module per task that reads what the backbone returns; without heads each task predicts its gated
            final feature itself.
        sites: "auto" (see `gatedeploy.gating.sites`), or names of the fx nodes to gate.
        group: how many neighbouring channels share one α.
        tie: "residual" gives all block outputs on one residual stream one gate.
        gates: "channel", or "head" for one gate per head of attention over q, k and v together.
        leaf_modules: modules of the backbone, by name or class, that `torch.fx` shall not look into; gates stand around
            them, not inside.

    Raises:
        InputError: the backbone cannot be traced, gated or, once trained, collapsed; or the arguments contradict each
            other.
    """
    backbone = getattr(backbone, "_orig_mod", backbone)  # that which torch.compile wrapped
    tasks, heads = _checked(backbone, tasks, heads, example_input)
    _check_placing(sites, group, tie, gates, leaf_modules)
    try_out(backbone, [task.name for task in tasks], heads, example_input)
    template = trace(backbone, example_input, leaf_modules)
    found = find_sites(template.evaluation, template.root, sites, tie, group, per_head=gates == "head")
    _require(template.training, found)
    network = GatedNetwork(
        tasks,
        InputSpec(*example_input.shape[1:]),
        tuple(found),
        _container({name: copy.deepcopy(template.root) for name in (*(task.name for task in tasks), SHARED)}),
        _container(heads),
    )
    network._any_size = template.any_size
    kinds = {parameter.dtype for parameter in backbone.parameters() if parameter.is_floating_point()}
    if len(kinds) == 1:  # gates and mixes compute as precisely as what they gate
        network.gates.to(dtype=next(iter(kinds)))
        network.mixes.to(dtype=next(iter(kinds)))
    names = [task.name for task in tasks]
    for mode, graph in ((True, template.training), (False, template.evaluation)):
        network._run[mode] = _compiled(weave(graph, found, names, list(heads)))
    return network.train(backbone.training)


def _checked(
    backbone: nn.Module, tasks: Sequence[Task], heads: Mapping[str, nn.Module] | None, example_input: Tensor
) -> tuple[tuple[Task, ...], dict[str, nn.Module]]:
    """Tasks and heads that fit each other, of a backbone and an example that can be tried out."""
    if not isinstance(backbone, nn.Module):
        raise InputError(f"backbone: expected a torch.nn.Module, got a {type(backbone).__name__}")
    check_pictures("example_input", example_input)
    if 0 in example_input.shape:
        raise InputError(f"example_input: there is nothing in it, its shape is {tuple(example_input.shape)}")
    if not isinstance(tasks, Iterable):
        raise InputError(f"tasks: expected a list of tasks, got a {type(tasks).__name__}")
    if heads is not None and not isinstance(heads, Mapping):
        raise InputError(f"heads: expected a dict of modules by task, got a {type(heads).__name__}")
    tasks, heads = check_tasks(tuple(tasks)), dict(heads or {})
    names = [task.name for task in tasks]
    for name, head in heads.items():
        if name not in names:
            raise InputError(f"a head was given for {name!r}, which is no task")
        if not isinstance(head, nn.Module):
            raise InputError(f"the head of {name!r} is a {type(head).__name__}; expected a torch.nn.Module")
    without = [name for name in names if name not in heads]
    if heads and without:
        raise InputError(
            f"task {without[0]!r} has no head, so it has no output; give it one, torch.nn.Identity() if it shall "
            "predict what the backbone returns"
        )
    return tasks, heads


def _check_placing(
    sites: str | Sequence[str], group: int, tie: str | None, gates: str, leaves: Sequence[str | type[nn.Module]]
) -> None:
    for argument, given, known in (("tie", tie, (None, "residual")), ("gates", gates, ("channel", "head"))):
        if given not in known:
            raise InputError(f"{argument} must be {known[0]!r} or {known[1]!r}, got {given!r}")
    if type(group) is not int or group < 1:
        raise InputError(f"group must be a whole number, at least 1, got {group!r}")
    if isinstance(sites, str) and sites != "auto":
        raise InputError(f"sites must be 'auto' or a list of names, got {sites!r}")
    if not all(isinstance(site, str) for site in sites):
        raise InputError(f"sites must be names, as `site.name` has them, got {sites!r}")
    listed = isinstance(leaves, Iterable) and not isinstance(leaves, str)
    if not listed or not all(isinstance(leaf, (str, type)) for leaf in leaves):
        raise InputError(f"leaf_modules must be a list of names or classes of modules, got {leaves!r}")


def _require(graph: fx.Graph, sites: Sequence[Site]) -> None:
    """Training and evaluation must meet at the same places, or the trained gates would mean something else."""
    shapes = {node.meta["name"]: node.meta.get("shape") for node in graph.nodes}
    for site in sites:
        if site.name not in shapes:
            raise InputError(
                f"the backbone's forward differs between training and evaluation: {site.name!r} exists only in "
                "evaluation; branches need the same gate sites in both"
            )
        shape = shapes[site.name]
        if shape is None or shape[site.axis] != site.channels:
            raise InputError(
                f"the backbone's forward differs between training and evaluation: {site.name!r} has {site.channels} "
                f"channels in evaluation, in training its shape is {shape}"
            )


def _container(modules: Mapping[str, nn.Module]) -> nn.Module:
    container = nn.Module()
    for name, module in modules.items():
        if hasattr(container, name):
            raise InputError(f"task name {name!r} is an attribute of torch.nn.Module; choose another")
        container.add_module(name, module)
    return container


def _compiled(graph: fx.Graph) -> Any:
    """The graph as a function `forward(self, image)`, a plain function so that networks can be deep-copied."""
    code = graph.python_code("self")
    scope = dict(code.globals)
    exec(compile(code.src, "<gated network>", "exec"), scope)
    return scope["forward"]
