"""Weave T+1 copies of a backbone's graph into one that runs them in lockstep.

A node of the template becomes one node per branch; at a site each task's gate chooses between its own and the shared
value, and the shared branch goes on from the mix of what the tasks chose. Or the branches meet at their end alone,
behind encoders or decoders (Safe MTL), and nothing is mixed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import fx

from gatedeploy.gating.sites import DECODER, ENCODER, Site
from gatedeploy.gating.woven import copied
from gatedeploy.specs import SHARED


def weave(template: fx.Graph, sites: Sequence[Site], tasks: Sequence[str], heads: Sequence[str]) -> fx.Graph:
    """The lockstep graph, calling `branches.<branch>`, `gates.<gate>.<task>`, `mixes.<site>`, `heads.<task>`.

    Args:
        template: the backbone's graph, with one placeholder; `meta["name"]` is what a site calls a node.
        sites: where to gate; the end of whole branches is the only one. Behind decoders the shared branch calls
            `public_heads.<task>`.
        tasks: the task names.
        heads: those of them that have a head; the others predict their gated final feature.
    """
    at = {site.name: site for site in sites if not site.end}
    end = next((site.name for site in sites if site.end), None)
    woven = fx.Graph()
    values: dict[str, dict[fx.Node, fx.Node]] = {branch: {} for branch in (*tasks, SHARED)}
    for node in template.nodes:
        if node.op == "output":
            woven.output(_predictions(woven, node, values, tasks, heads, end))
        elif node.op == "placeholder":
            shared_input = woven.placeholder("image")
            for branch in values.values():
                branch[node] = shared_input
        else:
            for name, branch in values.items():
                branch[node] = copied(woven, node, f"branches.{name}", branch)
            site = at.get(node.meta["name"])
            if site is not None:
                _meet(woven, node, site, values, tasks)
    return woven


def _meet(
    woven: fx.Graph, node: fx.Node, site: Site, values: dict[str, dict[fx.Node, fx.Node]], tasks: Sequence[str]
) -> None:
    shared = values[SHARED][node]
    for task in tasks:
        gate = f"gates.{site.gate}.{task}"
        values[task][node] = woven.call_module(gate, (values[task][node], shared))
    if site.mixes:
        values[SHARED][node] = woven.call_module(f"mixes.{site.name}", tuple(values[task][node] for task in tasks))


def _predictions(
    woven: fx.Graph,
    output: fx.Node,
    values: dict[str, dict[fx.Node, fx.Node]],
    tasks: Sequence[str],
    heads: Sequence[str],
    end: str | None,
) -> dict[str, Any]:
    predictions: dict[str, Any] = {}
    for task in tasks:
        gate, own, shared = f"gates.{end}.{task}", values[task], values[SHARED]
        if end == ENCODER:
            own = {leaf: woven.call_module(gate, (own[leaf], shared[leaf])) for leaf in output.all_input_nodes}
        features = fx.map_arg(output.args[0], own.__getitem__)
        predictions[task] = woven.call_module(f"heads.{task}", (features,)) if task in heads else features
        if end == DECODER:
            public = woven.call_module(f"public_heads.{task}", (fx.map_arg(output.args[0], shared.__getitem__),))
            predictions[task] = woven.call_module(gate, (predictions[task], public))
    return predictions
