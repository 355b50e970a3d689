"""The gated multi-task network: T+1 branches in lockstep (InterroGate section 3)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from gatedeploy.errors import InputError, closest
from gatedeploy.gating.layers import ChannelGate, Mix
from gatedeploy.gating.lockstep import weave
from gatedeploy.gating.placing import OVER_WHOLES, check_placing
from gatedeploy.gating.sites import DECODER, ENDS, Site, find_sites
from gatedeploy.gating.task_network import container
from gatedeploy.gating.whole_gates import GumbelGate, SoftGate
from gatedeploy.gating.woven import WovenNetwork, load_branch, require, traced
from gatedeploy.specs import SHARED, InputSpec, Task

WHOLE: dict[str, Callable[[], SoftGate | GumbelGate]] = dict(zip(OVER_WHOLES, (SoftGate, GumbelGate), strict=True))


class GatedNetwork(WovenNetwork):
    """One branch per task and a shared one, each with its own copy of the backbone; made by `gate`.

    Attributes:
        tasks: what it predicts.
        input: the picture it takes.
        sites: where the branches meet.
        branches: the copies of the backbone, by task name and `shared`.
        gates: by gate name and task: `ChannelGate`s, or behind whole branches `SoftGate`s or `GumbelGate`s.
        mixes: the `Mix`es, by site.
        heads: the tasks' heads, by task.
        public_heads: where gates stand behind the decoders, those of the shared branch, by task.
    """

    def __init__(
        self,
        tasks: tuple[Task, ...],
        input: InputSpec,
        sites: tuple[Site, ...],
        branches: Mapping[str, nn.Module],
        heads: Mapping[str, nn.Module],
        whole: Callable[[], SoftGate | GumbelGate] | None = None,
    ) -> None:
        super().__init__(tasks, input, heads)
        self.sites = sites
        self.branches = container(branches)
        self.public_heads = copy.deepcopy(self.heads) if sites[0].end and sites[0].name == DECODER else nn.Module()
        self.gates = nn.Module()
        self.mixes = nn.Module()
        for site in sites:
            if not hasattr(self.gates, site.gate):
                gates = nn.Module()
                for task in tasks:
                    made = whole() if whole else ChannelGate(site.channels, site.group, site.axis)
                    gates.add_module(task.name, made)
                self.gates.add_module(site.gate, gates)
            if site.mixes:
                self.mixes.add_module(site.name, Mix(len(tasks), site.channels, site.axis))

    def gate(self, site: Site | str, task: str) -> ChannelGate:
        """The gate of `task` at `site`, which may be given by its name; see `whole_gates` for those behind branches."""
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
        yield from self.public_heads.parameters()

    def whole_gates(self) -> dict[str, SoftGate | GumbelGate]:
        """The gates behind whole encoders or decoders, by task; {} where gates stand elsewhere.

        Their `public` is Safe MTL's α, as the paper counts. Call `project` of each after each step of an optimiser.
        """
        if not self.sites[0].end:
            return {}
        return dict(self.gates.get_submodule(self.sites[0].gate).named_children())  # type: ignore[arg-type]

    def load_branch(self, branch: str, weights: Mapping[str, Tensor]) -> None:
        """Start one branch from the weights of a single-task or pretrained backbone (supplement B.3).

        Args:
            branch: a task's name or `shared`.
            weights: the state dict of the ungated backbone.

        Raises:
            InputError: no such branch, or the weights are not those of this backbone.
        """
        load_branch(self.branches, branch, weights)

    def decided(self) -> tuple[str, dict[str, float]]:
        """The share of its own channels that each task takes; of gates behind whole branches Safe MTL's α."""
        whole = self.whole_gates()
        if whole:
            return "public α", {task: gate.public for task, gate in whole.items()}
        return "specific", self.specific_share()

    def specific_share(self) -> dict[str, float]:
        """Share of what is a task's own, by task: the mean over sites of the mean over channels."""
        shares: dict[str, float] = {}
        for task in self.tasks:
            chosen = [self.gate(site, task.name).share().mean() for site in self.sites]
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
        sites: "auto" (see `gatedeploy.gating.sites`), or names of the fx nodes to gate; "encoder" for one gate a task
            behind the whole backbone, "decoder" for one behind the heads, of which the shared branch gets its own
            (Safe MTL).
        group: how many neighbouring channels share one α.
        tie: "residual" gives all block outputs on one residual stream one gate.
        gates: "channel" (InterroGate), or "head" for one gate per head of attention over q, k and v together; behind
            encoders or decoders "soft" (SMTL, SMTL_c), or "drawn" (the lite forms, L-SMTL and L-SMTL_c).
        leaf_modules: modules of the backbone, by name or class, that `torch.fx` shall not look into; gates stand around
            them, not inside.

    Raises:
        InputError: the backbone cannot be traced, gated or, once trained, collapsed; or the arguments contradict each
            other.
    """
    check_placing(sites, group, tie, gates, leaf_modules, bool(heads))
    tasks, heads, template = traced(backbone, tasks, heads, example_input, leaf_modules)
    if sites in ENDS:
        found = [Site(str(sites), str(sites), channels=1, axis=1, group=1, mixes=False, end=True)]
    else:
        found = find_sites(template.evaluation, template.root, sites, tie, group, per_head=gates == "head")
        require(template.training, found)
    network = GatedNetwork(
        tasks,
        InputSpec(*example_input.shape[1:]),
        tuple(found),
        {name: copy.deepcopy(template.root) for name in (*(task.name for task in tasks), SHARED)},
        heads,
        WHOLE.get(gates),
    )
    kinds = {parameter.dtype for parameter in backbone.parameters() if parameter.is_floating_point()}
    if len(kinds) == 1:  # gates and mixes compute as precisely as what they gate
        network.gates.to(dtype=next(iter(kinds)))
        network.mixes.to(dtype=next(iter(kinds)))
    names = [task.name for task in tasks]
    network.weave(template, lambda graph: weave(graph, found, names, list(heads)))
    return network.train(backbone.training)
