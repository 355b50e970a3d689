"""A benchmark part by part: candidates are opened and measured, and what is there so far makes a report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from gatedeploy.artifact import ModelInfo
from gatedeploy.benchmarks import scenarios
from gatedeploy.benchmarks.accuracy import accuracies
from gatedeploy.benchmarks.against import Against, Earlier, Where, changes, check_comparable, unlike
from gatedeploy.benchmarks.bench_options import BenchOptions
from gatedeploy.benchmarks.candidates import OURS, Candidate
from gatedeploy.benchmarks.energy import measure_energy
from gatedeploy.benchmarks.environment import environment, processor
from gatedeploy.benchmarks.footprint import measure_footprint
from gatedeploy.benchmarks.latency import Latency
from gatedeploy.benchmarks.layers import profile
from gatedeploy.benchmarks.predictions import Example, examples
from gatedeploy.benchmarks.published import Published, published
from gatedeploy.benchmarks.reduced import reductions
from gatedeploy.benchmarks.report import Report, candidate_reports
from gatedeploy.benchmarks.runners import Opened, open_candidate, open_file, picture
from gatedeploy.benchmarks.scenarios import Effort, Runners, Scenarios, offer_loads, sweep_batches
from gatedeploy.benchmarks.sharing import sites_from_plain
from gatedeploy.benchmarks.subjects import Subject
from gatedeploy.benchmarks.timing import Stopped, measure, request_of
from gatedeploy.errors import InputError, located
from gatedeploy.graph.shares import SiteShare, site_shares
from gatedeploy.runners.base import Array, Runner
from gatedeploy.specs import Task
from gatedeploy.training.recipe import Recipe

SEED = 0
BASELINE = "mtl"
PROFILED = ("mtl", "naive", *OURS)
Say = Callable[[str], None]


@dataclass
class Measured:
    """A benchmark as far as it has come.

    Args:
        options: how to measure.
        command: what was typed.
        subjects: what was given.
        candidates: what is measured, in the order of the report.
        notes: what the report has to say of what is missing.
        earlier: the report to compare with, if any.
        load_before: what `load` said before anything began.
        opened: the candidates, ready to answer.
        latency: of single requests; None before they are measured.
        scenarios: what is measured beside them.
        examples: predictions beside labels.
        done: keys of `STAGES`.
    """

    options: BenchOptions
    command: str
    subjects: Sequence[Subject]
    candidates: Sequence[Candidate]
    notes: list[str]
    earlier: Earlier | None
    load_before: float | None
    opened: list[Opened] = field(default_factory=list)
    latency: Latency | None = None
    scenarios: Scenarios = field(default_factory=Scenarios)
    examples: list[Example] = field(default_factory=list)
    done: list[str] = field(default_factory=list)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """In the order of the first network that answers all of them."""
        by_name: dict[str, Task] = {}
        for subject in sorted(self.subjects, key=lambda subject: subject.form == "single"):
            for task in subject.info.tasks:
                by_name.setdefault(task.name, task)
        return tuple(by_name.values())

    @property
    def where(self) -> Where:
        """Where and how it is measured."""
        return processor(), self.options.threads, self.options.runtime

    def check(self) -> None:
        """Raise `InputError` for what would else be told after minutes."""
        if self.earlier is None:
            return
        names = [candidate.name for candidate in self.candidates]
        with located(str(self.options.against)):
            check_comparable(self.earlier, self.baseline, names, self.where)
        files = [(str(each.path), each.sha256) for each in self.subjects]
        self.notes += unlike(self.earlier, files, names, self.where)

    def open(self, folder: Path, stack: ExitStack, say: Say) -> None:
        """Export and open all candidates; files go into `folder`, and `stack` closes what was opened."""
        first = self.subjects[0].info
        info = ModelInfo(self.tasks, first.input, first.form)
        for candidate in self.candidates:
            say(f"exporting: {candidate.name}")
            how = folder, self.options.runtime, self.options.threads, stack
            self.opened.append(open_candidate(candidate, info, *how))

    def look(self, say: Say) -> None:
        """See what the first network of ours predicts, where there are pictures."""
        ours = next((each.name for each in self.candidates if each.kind in OURS), None)
        if ours is None:
            return
        say(f"predicting: {ours}")
        (runner,) = next(ran.runners for ran in self.opened if ran.name == ours)
        known = next((subject for subject in self.subjects if subject.info.recipe), self.subjects[0])
        self.examples, reason = examples(
            *(known.info.recipe, str(known.path), self.options.data, self.tasks, known.info.input),
            lambda image: runner.infer({runner.inputs[0].name: image}),
        )
        if reason and self.options.data is not None:
            raise InputError(f"--data {self.options.data}: {reason}")
        if reason:
            self.notes.append(f"There are no pictures of predictions: {reason}.")

    @property
    def baseline(self) -> str:
        """The candidate that all are compared with."""
        names = [candidate.name for candidate in self.candidates]
        return BASELINE if BASELINE in names else names[0]

    @property
    def image(self) -> Array:
        """What every candidate is asked about."""
        return picture(self.subjects[0].info.input)

    @property
    def effort(self) -> Effort:
        """How much is measured."""
        return self.options.effort or (scenarios.QUICK if self.options.quick else scenarios.FULL)

    @property
    def exported(self) -> list[Opened]:
        """All but what PyTorch runs itself."""
        return [ran for ran in self.opened if ran.files]

    def stages(self, say: Say) -> Iterator[None]:
        """Measure part by part; what is there after each makes a report."""
        for name, stage in STAGES.items():
            stage(self, say)
            self.done.append(name)
            yield

    def _single(self, say: Say) -> None:
        runners: Runners = {ran.name: ran.runners for ran in self.opened}
        plan = self.effort.single
        say(f"measuring single requests for about {plan.seconds:.0f} s, in turns: {', '.join(runners)}")
        try:
            self.latency = measure(runners, self.image, self.baseline, plan, seed=SEED)
        except Stopped as stop:
            self.latency = stop.latency
            raise

    def _footprints(self, say: Say) -> None:
        say("measuring loading and memory, each in a process of its own")
        how = self.options.runtime, self.options.threads, self.image
        for ran in self.exported:
            self.scenarios.footprints[ran.name] = measure_footprint(ran.files, *how)

    def _layers(self, say: Say) -> None:
        # Of what the compiler made: elsewhere the runtime joins layers, and calls them by one of their names.
        made = [ran for ran, each in zip(self.opened, self.candidates, strict=True) if each.kind in PROFILED]
        for ran in made if self.options.runtime == "onnxruntime" else ():
            if len(ran.files) == 1:
                self.scenarios.layers[ran.name] = profile(ran.files[0], self.image, self.options.threads)

    def _batches(self, say: Say) -> None:
        say(f"measuring batches of {', '.join(map(str, self.effort.batches))}")
        how = self.options.runtime, self.options.threads

        def open_at(size: int, stack: ExitStack) -> Runners:
            found: dict[str, list[Runner]] = {}
            for ran in self.exported:
                taken = size if ran.any_batch else 1
                found[ran.name] = [
                    stack.enter_context(open_file(file, *how, batch=taken, name=ran.name)) for file in ran.files
                ]
            return found

        for size, each in sweep_batches(open_at, self.image, self.baseline, self.effort, SEED):
            self.scenarios.batches[size] = each

    def _offered(self, say: Say) -> None:
        say("measuring requests that come at random")
        assert self.latency is not None
        capacity = 1e3 / self.latency.of(self.baseline).median_ms
        among = {ran.name: ran.runners for ran in self.exported}
        for name, each in offer_loads(among, self.image, capacity, self.effort, SEED):
            self.scenarios.offered[name] = each

    def _energy(self, say: Say) -> None:
        for ran in self.opened:
            used = measure_energy(request_of(ran.runners, self.image), self.effort.energy_seconds)
            if used is not None:
                self.scenarios.energy[ran.name] = used

    def _missing(self) -> Iterator[str]:
        for stage in STAGES:
            if stage not in self.done:
                begun = self.latency is not None and STAGES[stage] is Measured._single
                yield f"the rest of the {stage}" if begun else stage

    def _published(self) -> list[Published]:
        recipe = next((subject.info.recipe for subject in self.subjects if subject.info.recipe), None)
        return published(Recipe.from_plain(recipe)) if recipe and self.baseline == BASELINE else []

    def report(self) -> Report:
        """What there is so far."""
        options, latency = self.options, self.latency
        assert latency is not None
        where = environment(options.threads, self.load_before)
        against = None
        if self.earlier is not None:
            changed = changes(self.earlier, latency, self.where)
            against = Against(str(options.against), self.earlier.created, changed)
        return Report(
            created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            command=self.command,
            paths=tuple({"path": str(each.path), "form": each.form, "sha256": each.sha256} for each in self.subjects),
            tasks=self.tasks,
            input=self.subjects[0].info.input,
            baseline=latency.baseline,
            candidates=candidate_reports(self.candidates, self.opened, latency, self.scenarios, len(self.tasks)),
            sharing=_sharing(self.subjects),
            accuracy=tuple(accuracies(self.subjects)),
            reductions=tuple(reductions(self.subjects)),
            published=tuple(self._published()),
            latency={
                **{"runtime": options.runtime, "threads": options.threads, "batch": 1, "seed": latency.seed},
                "rounds": len(latency.measurements[0].samples_ms),
            },
            environment=where,
            warnings=(*latency.complaints, *self.scenarios.complaints(latency)),
            notes=tuple(self.notes),
            against=against,
            examples=tuple(self.examples),
            missing=tuple(self._missing()),
        )


STAGES: Mapping[str, Callable[[Measured, Say], None]] = {
    "single requests": Measured._single,
    "loading and memory": Measured._footprints,
    "layers": Measured._layers,
    "batches": Measured._batches,
    "offered load": Measured._offered,
    "energy": Measured._energy,
}
"""What is measured, part by part."""


def _sharing(subjects: Sequence[Subject]) -> dict[str, list[SiteShare]]:
    """The gate sites by label; a collapsed network and the checkpoint it was made of have the same, and stand once."""
    found: dict[str, list[SiteShare]] = {}
    for subject in subjects:
        sites: list[SiteShare] = []
        if subject.form == "gated" and subject.program is not None:
            sites = site_shares(subject.program)
        elif subject.form == "collapsed":
            with located(str(subject.path)):
                sites = sites_from_plain(subject.info.report.get("sites", []))
        if sites and sites not in found.values():
            found[subject.label] = sites
    return found
