"""A worker: takes trials of a study and trains them, until none is left to take.

out/journal.log                            the study, unless it lies in a data base
out/seeds/<seed>/single/<task>/, shared/   what all networks of a seed are compared with, trained once
out/starts/<digest>/start/<task>/          what they start from; trials that need the same share it
out/trials/<number>/checkpoint.pt          the network of a trial, once it is done
out/sweep.md, sweep.csv, pareto.svg, …     what came of it, see `gatedeploy.sweep.pages`

A worker that is killed loses at most an epoch: the next one goes on from its checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from gatedeploy.artifact import ModelInfo, read_checkpoint
from gatedeploy.compiler import collapse
from gatedeploy.errors import CheckError
from gatedeploy.gating.multi_head import MultiHead
from gatedeploy.specs import Task
from gatedeploy.sweep.grid import in_words
from gatedeploy.sweep.locks import do_once
from gatedeploy.sweep.pages import write_pages
from gatedeploy.sweep.plan import start_folder
from gatedeploy.sweep.records import Found, Measured, Rivals, Trial
from gatedeploy.sweep.study import Study
from gatedeploy.training.comparing import compare
from gatedeploy.training.journal import Journal
from gatedeploy.training.recipe import Recipe
from gatedeploy.training.snapshots import FILE
from gatedeploy.training.stages import Branched, Parts, Road, check_collapsible

Job = Callable[[], None]


def work(study: Study, journal: Journal, command: str) -> Found:
    """Train trials until all are done or in other workers' hands.

    A trial whose training comes to nothing, such as to weights that are no numbers, is called failed, and the next is
    taken. Any other error ends the worker; the trial is taken up again by the next worker that looks for one.

    Args:
        study: see `open_study`.
        journal: told of progress.
        command: what was typed, for the pages.

    Returns:
        What the study holds then.
    """
    while True:
        with study.lock():
            found = study.found()
            write_pages(study.out, found, study.plan, command)
        claim = study.claim()
        if claim is None:
            return found
        with claim.lock:
            told = f"Trial {claim.trial.number} ({len(found.trials)} in all)"
            journal.say(f"{told}: {in_words(claim.trial.point)}, seed {claim.trial.seed}")
            rivals = train_rivals(study, claim.trial.seed, journal)
            try:
                delta_mtl, measured = train_trial(study, claim.trial, rivals, journal)
            except CheckError as error:
                journal.say(f"{told} failed: {error}")
                study.fail(claim, str(error))
            else:
                journal.say(f"{told}: Δ_MTL {delta_mtl:+.2f} %, {measured.macs:,} multiply-adds")
                study.finish(claim, delta_mtl, measured)


def train_rivals(study: Study, seed: int, journal: Journal) -> Rivals:
    """What the networks of a seed are compared with, trained where no worker has done so.

    Raises:
        CheckError: a loss or weight of theirs is no number, so that nothing can be compared.
    """
    with study.lock():
        known = study.found().rivals.get(seed)
    if known is not None:
        return known
    jobs, trained = _rival_jobs(study, seed, journal)
    do_once(jobs, study.out / "locks", journal.say)
    folder = study.out / "seeds" / str(seed)
    measured = {name: _measured(folder / name / FILE, info) for name, info in trained.items()}
    shared = measured.pop("shared", None)
    each = list(measured.values())
    metrics = {task: figures for net in each for task, figures in net.metrics.items()}
    single = Measured(metrics, sum(net.macs for net in each), sum(net.params for net in each))
    study.set_rivals(seed, Rivals(single, shared))
    return Rivals(single, shared)


def _rival_jobs(study: Study, seed: int, journal: Journal) -> tuple[dict[str, Job], dict[str, ModelInfo]]:
    """What trains them, and what they are when that is done, by folder."""
    trained: dict[str, ModelInfo] = {}
    recipe, parts = study.plan.at({}, seed)
    tasks = study.plan.tasks
    road = Road(recipe, parts, study.out / "seeds" / str(seed), journal, resume=True)

    def single(task: Task) -> None:
        trained[f"single/{task.name}"] = road.single(task)

    def shared() -> None:
        trained["shared"] = road.shared(tasks)

    jobs: dict[str, Job] = {f"single-{seed}-{task.name}": partial(single, task) for task in tasks}
    return {**jobs, **({f"shared-{seed}": shared} if recipe.train.rivals else {})}, trained


def train_trial(study: Study, trial: Trial, rivals: Rivals, journal: Journal) -> tuple[float, Measured]:
    """Train what a trial starts from and its network, as far as none of it is done; returns Δ_MTL and what it is of.

    Raises:
        CheckError: a loss or weight is no number, or Δ_MTL cannot be told.
    """
    tasks = study.plan.tasks
    recipe, parts = study.plan.at(trial.point, trial.seed)
    jobs, start = _start_jobs(study, recipe, parts, journal)
    do_once(jobs, study.out / "locks", journal.say)
    folder = study.out / "trials" / str(trial.number)
    info = Road(recipe, parts, folder, journal, resume=True).network(tasks, start)
    compared = compare(tasks, info.metrics, rivals.single.metrics)
    if compared is None or compared.delta_mtl is None:
        raise CheckError(
            f"{folder}: Δ_MTL cannot be told: a single-task network of seed {trial.seed} reached 0, to which nothing "
            "is relative, or was not measured. Train longer, or on more pictures"
        )
    return compared.delta_mtl, _measured(folder / FILE, info)


def _start_jobs(
    study: Study, recipe: Recipe, parts: Parts, journal: Journal
) -> tuple[dict[str, Job], dict[str, MultiHead]]:
    """What trains the networks from which a recipe's starts, and those networks once it is done."""
    tasks, start = study.plan.tasks, dict[str, MultiHead]()
    if not recipe.train.single_epochs or not isinstance(check_collapsible(recipe, parts, tasks), Branched):
        return {}, start
    folder = start_folder(study.out, recipe)
    road = Road(recipe, parts, folder, journal, resume=True)

    def begin(task: Task) -> None:
        start[task.name] = road.start(task)

    return {f"start-{folder.name}-{task.name}": partial(begin, task) for task in tasks}, start


def _measured(file: Path, info: ModelInfo) -> Measured:
    thin = collapse(read_checkpoint(file).program, target=None)
    assert thin.report is not None
    return Measured(info.metrics, thin.report.collapsed.macs, thin.report.collapsed.params)
