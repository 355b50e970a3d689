"""The costs that InterroGate publishes, beside those of the networks that gatedeploy builds by the same recipes.

    python -m gatedeploy.benchmarks.paper_costs [--json]

Counted with fvcore for one picture at the recipe's resolution: multiply-adds of convolutions and linear layers, by
running the plain networks once. The paper prints multiply-adds for HRNet and twice as many for the ResNets, and calls
both FLOPs (its tables 5, 9, 10 and 11). Its single-task column is T times the network for the first task, semantic
segmentation; the true sum over the tasks' networks stands beside it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import torch

from gatedeploy.assembly import describe_parts
from gatedeploy.benchmarks.costs import NetworkCost, count, total
from gatedeploy.errors import run_program
from gatedeploy.gating.multi_head import MultiHead
from gatedeploy.training.recipe_file import load_recipe


@dataclass(frozen=True)
class Published:
    """What the paper says of one network, in 10⁹ of its units and 10⁶ parameters.

    Args:
        per_mac: how many of its units one multiply-add is.
        mtl: of the shared encoder with a head per task; None, here and below, where its text does not say.
        stl: of the single-task networks together.
        mtl_params: of the first.
        stl_params: of the second.
    """

    per_mac: int
    mtl: float | None = None
    stl: float | None = None
    mtl_params: float | None = None
    stl_params: float | None = None


PUBLISHED = {
    "nyud_hrnet18": Published(1, 24.5, 65.1, 9.8, 28.9),
    "nyud_resnet50": Published(2, 683, 1149, 71.9, 118.9),
    "pascal_resnet18": Published(2, 284, 670),
    "celeba_resnet20": Published(1, 0.058, 0.174),
    "nyud_dpt_vits": Published(1),
    "nyud_dpt_vitb": Published(1),
}
"""By recipe."""


@dataclass(frozen=True)
class Row:
    """One column of the paper's tables, and ours.

    Args:
        recipe: the network.
        what: `MTL`, `STL` by the paper's rule, or `STL, true sum`.
        macs: multiply-adds.
        params: parameters.
        units: 10⁹ of the paper's units.
        published: what the paper says in them.
        published_params: what it says of the parameters, in 10⁶.
    """

    recipe: str
    what: str
    macs: int
    params: int
    units: float
    published: float | None
    published_params: float | None

    @property
    def deviation(self) -> float | None:
        """Ours over the paper's, less one."""
        return None if self.published is None else self.units / self.published - 1


def rows(recipe: str) -> Iterator[Row]:
    """The costs of the plain networks of a bundled recipe."""
    known = PUBLISHED[recipe]
    settings = load_recipe(recipe)
    data, make_backbone, make_head = describe_parts(settings, recipe)
    tasks = settings.chosen_tasks(data.tasks)
    single = [count(MultiHead(make_backbone(), {task.name: make_head(task)}), data.input) for task in tasks]
    shared = count(MultiHead(make_backbone(), {task.name: make_head(task) for task in tasks}), data.input)

    def row(what: str, cost: NetworkCost, published: float | None = None, params: float | None = None) -> Row:
        return Row(recipe, what, cost.macs, cost.params, cost.macs * known.per_mac / 1e9, published, params)

    yield row("MTL", shared, known.mtl, known.mtl_params)
    yield row("STL", total([single[0]] * len(tasks)), known.stl, known.stl_params)
    yield row("STL, true sum", total(single))


def _line(row: Row) -> str:
    published = "" if row.published is None else f"{row.published:g}"
    deviation = "" if row.deviation is None else f"{row.deviation:+.1%}"
    params = "" if row.published_params is None else f"{row.published_params:g}"
    cells = (row.recipe, row.what, f"{row.macs / 1e9:.4g}", f"{row.units:.4g}", published, deviation)
    return f"| {' | '.join(cells)} | {row.params / 1e6:.1f} | {params} |"


def main() -> None:
    """Count, and print a table or one JSON document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    found = [row for recipe in PUBLISHED for row in rows(recipe)]
    if arguments.json:
        print(json.dumps([{**asdict(row), "deviation": row.deviation} for row in found], indent=1))
        return
    print("| recipe | network | G MACs | in the paper's unit | published | deviation | M parameters | published |")
    print("| --- " * 8 + "|")
    for row in found:
        print(_line(row))


if __name__ == "__main__":
    run_program(main)
