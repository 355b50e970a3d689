"""What came of one training with one seed: from its checkpoint, or from the figures that were kept of it.

Figures are kept beside the checkpoints, in `figures.json`, and are all that a table needs but for latencies. So a seed
may be trained on another machine, of which only that file is brought along.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gatedeploy.artifact import read_checkpoint
from gatedeploy.benchmarks.candidates import Candidate, candidate, mixture_candidates, trained_mixture
from gatedeploy.benchmarks.costs import NetworkCost
from gatedeploy.compiler import collapse
from gatedeploy.errors import InputError, first_line
from gatedeploy.files import write_text
from gatedeploy.models.moe import MOE
from gatedeploy.specs import Task
from gatedeploy.training.metrics import Metrics
from gatedeploy.training.snapshots import FILE

FIGURES = "figures.json"
SINGLE = "single"


@dataclass(frozen=True)
class Line:
    """What came of a way of sharing with one seed.

    Args:
        metrics: by task and metric.
        candidate: its collapsed network, all single-task networks, or the passes of a mixture of experts; without
            networks where only figures were kept.
    """

    metrics: Metrics
    candidate: Candidate


def read_lines(folder: Path, names: Sequence[str], tasks: Sequence[Task]) -> dict[str, Line]:
    """By name, what there is of one seed, `single` for its single-task networks; figures of all of it are kept.

    Args:
        folder: of the seed.
        names: what to look for.
        tasks: of the single-task networks.
    """
    kept = kept_figures(folder)
    lines = {name: _from_plain(name, plain) for name, plain in kept.items()}
    singles = [folder / SINGLE / task.name / FILE for task in tasks]
    if all(file.is_file() for file in singles):
        lines[SINGLE] = _read(SINGLE, singles)
    for name in names:
        if (folder / name / FILE).is_file():
            lines[name] = _read(name, [folder / name / FILE])
    if lines:
        plain = {name: _to_plain(line) for name, line in lines.items()}
        write_text(folder / FIGURES, json.dumps(plain, indent=1) + "\n")
    return lines


def kept_figures(folder: Path) -> dict[str, Any]:
    """By name, the figures that were kept of this seed.

    Raises:
        InputError: the file is damaged.
    """
    file = folder / FIGURES
    if not file.is_file():
        return {}
    try:
        plain: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return {name: {key: of[key] for key in ("metrics", "macs", "params")} for name, of in plain.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        told = f"holds no figures of trainings ({first_line(error)})"
        raise InputError(f"{file}: {told}; delete it, and it is made anew from checkpoints") from None


def _read(name: str, files: Sequence[Path]) -> Line:
    """From finished checkpoints: one of all tasks, or one for each."""
    read = [read_checkpoint(file) for file in files]
    metrics = {task: figures for each in read for task, figures in each.info.metrics.items()}
    info = read[0].info
    if info.form == MOE:
        passes, _ = mixture_candidates(trained_mixture(info, files[0]), info.input)
        return Line(metrics, replace(passes, name=name))
    thin = [collapse(each.program) for each in read]
    return Line(metrics, replace(candidate("collapsed", thin, info.input), name=name))


def _to_plain(line: Line) -> Mapping[str, Any]:
    return {"metrics": line.metrics, "macs": line.candidate.cost.macs, "params": line.candidate.cost.params}


def _from_plain(name: str, plain: Mapping[str, Any]) -> Line:
    return Line(plain["metrics"], Candidate(name, "collapsed", NetworkCost(plain["macs"], plain["params"])))
