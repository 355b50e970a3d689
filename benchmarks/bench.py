"""`gatedeploy bench`: what networks cost in multiply-adds and milliseconds, beside what one would run instead."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from gatedeploy.artifact import ModelInfo
from gatedeploy.benchmarks import scenarios
from gatedeploy.benchmarks.accuracy import accuracies
from gatedeploy.benchmarks.against import Earlier, changes, check_comparable, read_earlier
from gatedeploy.benchmarks.candidates import Candidate, assemble
from gatedeploy.benchmarks.energy import measure_energy
from gatedeploy.benchmarks.environment import cores, environment, load
from gatedeploy.benchmarks.footprint import measure_footprint
from gatedeploy.benchmarks.latency import Latency, Stopped, measure, request_of
from gatedeploy.benchmarks.latency_sections import OURS
from gatedeploy.benchmarks.layers import profile
from gatedeploy.benchmarks.page import report_files, write_report
from gatedeploy.benchmarks.predictions import Example, examples
from gatedeploy.benchmarks.report import Against, Report, candidate_reports
from gatedeploy.benchmarks.runners import RUNTIMES, Opened, open_candidate, open_file, picture
from gatedeploy.benchmarks.scenarios import Effort, Runners, Scenarios, offer_loads, sweep_batches
from gatedeploy.benchmarks.sharing import sites_from_plain
from gatedeploy.benchmarks.subjects import Subject, read_subjects
from gatedeploy.errors import InputError, check_known, located
from gatedeploy.files import check_writable
from gatedeploy.graph.shares import SiteShare, site_shares
from gatedeploy.runners.base import Array, Runner
from gatedeploy.specs import Task

SEED = 0
BASELINE = "mtl"
Say = Callable[[str], None]


@dataclass(frozen=True)
class BenchOptions:
    """How networks are measured.

    Args:
        quick: measure latencies for seconds rather than minutes.
        threads: how many threads compute one request.
        runtime: what runs exported networks, of `RUNTIMES`.
        compiled: whether the gated network is measured in `torch.compile`, too.
        effort: how much to measure; decided by `quick` when None.
        data: a recipe whose pictures are shown with what is predicted for them; the network's own when None.
        against: the `report.json` of an earlier benchmark, to tell what got slower.
    """

    quick: bool = False
    threads: int = 1
    runtime: str = RUNTIMES[0]
    compiled: bool = False
    effort: Effort | None = None
    data: str | None = None
    against: Path | None = None

    def check(self) -> None:
        """Raise `InputError` for what cannot be measured."""
        check_known("the runtime", self.runtime, RUNTIMES)
        if not 1 <= self.threads <= cores():
            expected = f"expected 1 to {cores()}, the cores this process may use"
            raise InputError(f"threads: {self.threads} for one request; {expected}")

    @property
    def words(self) -> list[str]:
        """As they are typed."""
        words = ["--quick"] if self.quick else []
        words += ["--threads", str(self.threads)] if self.threads != 1 else []
        words += ["--runtime", self.runtime] if self.runtime != RUNTIMES[0] else []
        words += ["--compile"] if self.compiled else []
        words += ["--data", self.data] if self.data else []
        return words + (["--against", str(self.against)] if self.against else [])


def bench(
    paths: Sequence[Path | str],
    out: Path | str,
    options: BenchOptions | None = None,
    *,
    say: Say = lambda line: None,
) -> Report:
    """Measure networks beside their rivals and write `report.json`, `report.md` and `report.html`.

    The report is written after each part of the measurement. So what was measured stays when it is stopped, and the
    report says what is missing.

    Args:
        paths: checkpoints, collapsed networks, bundles, or folders of a training; see `read_subjects`.
        out: the folder for the report; reports that are there are replaced.
        options: how; None for `BenchOptions()`.
        say: told what is going on, line by line.

    Raises:
        InputError: a path cannot be used, paths do not fit each other, a network cannot be exported, the report cannot
            be written there, there are fewer cores than threads, or there is no such runtime.
        MissingExtraError: the runtime is not installed.
        CheckError: a network computes something else in the runtime, or a bundle is damaged.
        GatedeployError: the report cannot be written.
    """
    out, options = Path(out), options or BenchOptions()
    options.check()
    for file in report_files(out).values():  # measuring takes minutes; a wrong place is told before
        check_writable(file)
    earlier = read_earlier(options.against) if options.against else None
    subjects = read_subjects(paths)
    say(f"collapsing and counting: {', '.join(subject.label for subject in subjects)}")
    candidates, notes = assemble(subjects, compiled=options.compiled)
    command = shlex.join(["gatedeploy", "bench", *map(str, paths), *options.words, "--out", str(out)])
    before = load()
    with tempfile.TemporaryDirectory(prefix="gatedeploy-bench-") as folder, ExitStack() as stack:
        measured = _Measured(options, command, subjects, candidates, notes, earlier, before)
        if earlier is not None:  # else it would be told after minutes
            check_comparable(earlier, measured.baseline, [candidate.name for candidate in candidates])
        measured.open(Path(folder), stack, say)
        measured.look(say)
        try:
            for _ in measured.stages(say):
                report = measured.report()
                write_report(report, out)
        except KeyboardInterrupt:
            if measured.latency is not None:
                write_report(measured.report(), out)
                say(f"stopped; what was measured is in {out}, and the report says what is missing")
            raise
    say(f"wrote {', '.join(str(file) for file in report_files(out).values())}")
    return report


@dataclass
class _Measured:
    """A benchmark as far as it has come."""

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

    def open(self, folder: Path, stack: ExitStack, say: Say) -> None:
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
        if reason:
            self.notes.append(f"There are no pictures of predictions: {reason}.")

    @property
    def baseline(self) -> str:
        """The candidate that all are compared with."""
        names = [candidate.name for candidate in self.candidates]
        return BASELINE if BASELINE in names else names[0]

    @property
    def image(self) -> Array:
        return picture(self.subjects[0].info.input)

    @property
    def effort(self) -> Effort:
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

    def single(self, say: Say) -> None:
        runners: Runners = {ran.name: ran.runners for ran in self.opened}
        plan = self.effort.single
        say(f"measuring single requests for about {plan.seconds:.0f} s, in turns: {', '.join(runners)}")
        try:
            self.latency = measure(runners, self.image, self.baseline, plan, seed=SEED)
        except Stopped as stop:
            self.latency = stop.latency
            raise

    def footprints(self, say: Say) -> None:
        say("measuring loading and memory, each in a process of its own")
        how = self.options.runtime, self.options.threads, self.image
        for ran in self.exported:
            self.scenarios.footprints[ran.name] = measure_footprint(ran.files, *how)

    def layers(self, say: Say) -> None:
        for ran in self.exported if self.options.runtime == "onnxruntime" else ():
            if len(ran.files) == 1:
                self.scenarios.layers[ran.name] = profile(ran.files[0], self.image, self.options.threads)

    def batches(self, say: Say) -> None:
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

    def offered(self, say: Say) -> None:
        say("measuring requests that come at random")
        assert self.latency is not None
        capacity = 1e3 / self.latency.of(self.baseline).median_ms
        among = {ran.name: ran.runners for ran in self.exported}
        for name, each in offer_loads(among, self.image, capacity, self.effort, SEED):
            self.scenarios.offered[name] = each

    def energy(self, say: Say) -> None:
        for ran in self.opened:
            used = measure_energy(request_of(ran.runners, self.image), self.effort.energy_seconds)
            if used is not None:
                self.scenarios.energy[ran.name] = used

    def report(self) -> Report:
        """What there is so far."""
        options, latency = self.options, self.latency
        assert latency is not None
        where = environment(options.threads, self.load_before)
        against = None
        if self.earlier is not None:
            changed = changes(self.earlier, latency, (where.cpu, options.threads, options.runtime))
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
            latency={
                **{"runtime": options.runtime, "threads": options.threads, "batch": 1, "seed": latency.seed},
                "rounds": len(latency.measurements[0].samples_ms),
            },
            environment=where,
            warnings=tuple(latency.complaints),
            notes=tuple(self.notes),
            against=against,
            examples=tuple(self.examples),
            missing=tuple(stage for stage in STAGES if stage not in self.done),
        )


STAGES: Mapping[str, Callable[[_Measured, Say], None]] = {
    "single requests": _Measured.single,
    "loading and memory": _Measured.footprints,
    "layers": _Measured.layers,
    "batches": _Measured.batches,
    "offered load": _Measured.offered,
    "energy": _Measured.energy,
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
