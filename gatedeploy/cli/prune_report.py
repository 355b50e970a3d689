"""What `gatedeploy prune` did, for people and for programs."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gatedeploy.artifact import ModelInfo
from gatedeploy.benchmarks.layouts import Tried
from gatedeploy.cli.screen import count, say, table
from gatedeploy.compiler import CollapseReport
from gatedeploy.graph.choices import SiteChoice, TensorChoice
from gatedeploy.graph.flips import Rounded
from gatedeploy.graph.prices import Prices
from gatedeploy.price_tables import own_table
from gatedeploy.training.metrics import headline


def document(report: CollapseReport) -> dict[str, Any]:
    """The document of `--json`."""
    return {
        "gated": asdict(report.gated),
        "collapsed": asdict(report.collapsed),
        "parity": {
            "float64": {"error": report.parity.error, "tolerance": report.parity.tolerance},
            "float32": {"error": report.parity_float32.error, "tolerance": report.parity_float32.tolerance},
        },
        "sites": [asdict(site) for site in report.sites],
        "barriers": report.barriers,
        "fewest_macs": report.fewest_macs,
        "layout": [_site(site) for site in report.layout],
        "rounded_gates": [asdict(gate) for gate in report.rounded],
        "seconds": report.seconds,
    }


def _site(site: SiteChoice) -> dict[str, Any]:
    told = {"ms": site.ms, "tactics": site.tactics, "kernels": site.kernels, "copied_bytes": site.copied_bytes}
    return {**asdict(site), **told}


def show_tried(tried: Sequence[Tried]) -> None:
    """The layouts that were run, and which it is."""
    names = ["layout", "ms, measured here", "÷ as predicted"]
    table(names, [[each.name, f"{each.ms:.3f}", f"{each.ratio:.3f}"] for each in tried])
    say("The first was the fastest, run in turns, and is the one that was kept.")


def show_layout(report: CollapseReport, prices: Prices, target: str) -> None:
    """Layer by layer: which tensors it makes, by what, and what that is predicted to cost."""
    rows = [
        [
            ", ".join(site.layers),
            " | ".join(_channels(tensor) for tensor in site.tensors),
            ", ".join(f"{count} {tactic}" for tactic, count in site.tactics.items()),
            *(f"{site.ms:.3f}", f"{site.plain_ms:.3f}", f"{site.kernels}", f"{site.copied_bytes:,}"),
        ]
        for site in report.layout
    ]
    total = [sum(site.ms for site in report.layout), sum(site.plain_ms for site in report.layout)]
    kernels, copied = (sum(getattr(site, name) for site in report.layout) for name in ("kernels", "copied_bytes"))
    rows.append(["", "", "", *(f"{ms:.3f}" for ms in total), f"{kernels}", f"{copied:,}"])
    headings = ["layer", "tensors and their channels", "kernels read", "ms", "plain, ms", "kernels", "bytes copied"]
    table(headings, rows)
    more = report.collapsed.macs / report.fewest_macs - 1
    own = own_table(prices.target)
    measured = f"measured on this machine ({own})" if own.is_file() else "that come with gatedeploy"
    where = target if target == prices.target else f"{target} ({prices.target})"
    say(
        f"Milliseconds are predicted for {where}, by prices {measured}: {prices.machine}. They are those of layers, "
        "additions and mixes; activations, pooling and whatever is kept whole come on top. Plain is one tensor per "
        f"layer and branch. {more:.1%} more multiply-adds are executed than the fewest."
    )


def show_rounded(rounded: Sequence[Rounded], finetuned: bool) -> None:
    """Which gates were flipped."""
    if not rounded:
        say("No gate had to be flipped: the network is as asked for already.")
        return
    names = ["gate", "channels kept by the task", "rounded", "choices flipped"]
    table(names, [[gate.gate, *map(str, (gate.before, gate.after, gate.flipped))] for gate in rounded])
    flipped = sum(gate.flipped for gate in rounded)
    what = "1 choice of a gate was" if flipped == 1 else f"{flipped:,} choices of gates were"
    say(
        f"{what} flipped, the least sure first: this is no longer the network that was trained. "
        + ("" if finetuned else "What it reaches has to be measured anew, and the file has no metrics. ")
        + "What follows compares it with the gated network whose gates are flipped too."
    )


def show_metrics(before: ModelInfo, after: ModelInfo, epochs: int) -> None:
    """What fine-tuning reached, beside what was trained before gates were flipped."""
    rows = []
    for task in after.tasks:
        metric = headline(task)
        known = before.metrics.get(task.name, {}).get(metric.name)
        told = "" if known is None else f"{known:.4g}"
        rows.append([f"{task.name} {metric.name} {metric.arrow}", told, f"{after.metrics[task.name][metric.name]:.4g}"])
    table(["", "as trained", f"after {epochs} epoch{'s' if epochs > 1 else ''} more"], rows)


def _channels(tensor: TensorChoice) -> str:
    return "+".join(f"{rows} {branch}".rstrip() for branch, rows in tensor.rows.items())


def show(report: CollapseReport, form: str) -> None:
    """What is left, and that it computes the same."""
    rows = [
        [name, f"{count(cost.macs)}", f"{count(cost.params)}"]
        for name, cost in ((f"{form}, as trained", report.gated), ("collapsed", report.collapsed))
    ]
    table(["", "MACs", "parameters"], rows)
    worst = max(report.parity.error.values())
    trained = f"the {form} network with flipped gates" if report.rounded else f"the {form} network"
    say(
        f"The same as {trained} to {worst:.1e} of the outputs' scale in float64; "
        f"{report.collapsed.macs / report.gated.macs:.1%} of the multiply-adds are left."
    )
    if report.barriers:
        met = ", ".join(f"{name} ({times}×)" for name, times in report.barriers.items())
        say(f"No rule takes these operators apart, what feeds them was kept whole: {met}.")


def show_file(info: ModelInfo, out: Path) -> None:
    """Where it is, and what comes next."""
    names = ", ".join(task.name for task in info.tasks)
    say(f"Wrote {out} ({names}). Next: gatedeploy export {shlex.quote(str(out))} --onnx")
