"""How a gated network shares, read from its program: site by site, task by task."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from torch import fx

from gatedeploy.gating.operators import BLEND, MIX, SELECT, per_channel
from gatedeploy.gating.sites import ENDS
from gatedeploy.program import Program
from gatedeploy.shapes import shapes_of


@dataclass(frozen=True)
class SiteShare:
    """One gate site.

    Args:
        site: its name.
        channels: how many channels it has; one where a gate behind an encoder or decoder takes all of them as one.
        specific: per task, how many of them the task keeps for itself; where they are blended, as a part of them.
        mix: per task, its mean share in the shared branch's feature (eq. 3); empty where that branch ends.
        public: per task, Safe MTL's α as the paper counts, 1 being all of the shared branch; empty but for gates behind
            whole encoders or decoders.
    """

    site: str
    channels: int
    specific: dict[str, float]
    mix: dict[str, float]
    public: dict[str, float] = field(default_factory=dict)


def site_shares(program: Program) -> list[SiteShare]:
    """The gate sites in the order in which the network reaches them; gates computed from the picture are left out."""
    shapes = shapes_of(program)
    mix_of = {select: node for node in program.graph.nodes if node.target is MIX for select in node.args[0]}
    sites: dict[object, SiteShare] = {}
    calls: Counter[str] = Counter()
    for node in program.graph.nodes:
        if node.target not in (SELECT, BLEND) or node.args[2].op != "get_attr":
            continue
        mix = mix_of.get(node)
        gate = str(node.args[2].target)
        calls[gate] += 1
        name, task = _names(node, mix, calls[gate])
        key = mix if mix is not None else name
        whole = len(program.weights[gate]) == 1  # a node of the backbone may be called as an end is
        at_end = whole and gate.startswith(tuple(f"gates.{end}." for end in ENDS))
        channels = 1 if at_end else shapes[node][node.args[-1]]
        site = sites.setdefault(key, SiteShare(name, channels, {}, {}))
        weight = program.weights[gate]
        if node.target is SELECT:
            site.specific[task] = int(per_channel(weight > 0, node.args[3], channels).sum())
        else:
            site.specific[task] = float(weight.double().expand(channels).sum())
        if at_end:
            own = weight.double().sigmoid() if node.target is SELECT else weight.double()
            site.public[task] = 1 - float(own)
        if mix is not None and mix.args[1].op == "get_attr":
            share = program.weights[str(mix.args[1].target)].softmax(0)
            site.mix[task] = float(share[mix.args[0].index(node)].mean())
    return list(sites.values())


def _names(select: Any, mix: fx.Node | None, call: int) -> tuple[str, str]:
    """Site and task. `gate` names its weights `gates.<gate>.<task>.…` and `mixes.<site>.…`; others have their own.

    AdaShare's choices are `units.<block>.<task>.…`; its own is the block, what all share the shortcut around it.

    Where the shared branch ends there is no mix to name the site; if its gate is tied, the how-manieth `call` of the
    gate it is tells it from the others: `<gate>#3`.
    """
    gate = str(select.args[2].target).split(".")
    made_by_gate = len(gate) == 4 and gate[0] in ("gates", "units")
    task = gate[2] if made_by_gate else ".".join(gate[:-1]) or gate[-1]
    if mix is not None:
        mixed: Any = mix.args[1]
        parts = str(mixed.target).split(".")
        return (parts[1] if parts[0] == "mixes" and len(parts) == 3 else ".".join(parts[:-1])), task
    if not made_by_gate:
        return select.name, task
    return (gate[1] if call == 1 else f"{gate[1]}#{call}"), task
