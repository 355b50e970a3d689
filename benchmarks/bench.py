"""`gatedeploy bench`: what networks cost in multiply-adds and milliseconds, beside what one would run instead."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from gatedeploy.artifact import ModelInfo
from gatedeploy.benchmarks.accuracy import accuracies
from gatedeploy.benchmarks.candidates import Candidate, assemble
from gatedeploy.benchmarks.environment import cores, environment, load
from gatedeploy.benchmarks.latency import FULL, QUICK, Latency, Plan, measure
from gatedeploy.benchmarks.page import report_files, write_report
from gatedeploy.benchmarks.report import Report, candidate_reports
from gatedeploy.benchmarks.runners import Opened, open_candidate, picture
from gatedeploy.benchmarks.sharing import sites_from_plain
from gatedeploy.benchmarks.subjects import Subject, read_subjects
from gatedeploy.errors import InputError, located
from gatedeploy.files import check_writable
from gatedeploy.graph.shares import SiteShare, site_shares
from gatedeploy.specs import Task

SEED = 0
BASELINE = "mtl"
Say = Callable[[str], None]


def bench(
    paths: Sequence[Path | str],
    out: Path | str,
    quick: bool = False,
    threads: int = 1,
    *,
    plan: Plan | None = None,
    say: Say = lambda line: None,
) -> Report:
    """Measure networks beside their rivals and write `report.json`, `report.md` and `report.html`.

    Args:
        paths: checkpoints, collapsed networks, bundles, or folders of a training; see `read_subjects`.
        out: the folder for the report; reports that are there are replaced.
        quick: measure latencies for seconds rather than minutes.
        threads: how many threads compute one request.
        plan: how long to measure latencies; decided by `quick` when None.
        say: told what is going on, line by line.

    Raises:
        InputError: a path cannot be used, paths do not fit each other, a network cannot be exported, `out` cannot be
            written, or there are fewer than `threads` cores.
        MissingExtraError: onnxruntime is not installed.
        CheckError: a network computes something else in ONNX Runtime, or a bundle is damaged.
        GatedeployError: the report cannot be written.
    """
    if not 1 <= threads <= cores():
        raise InputError(f"threads: {threads} for one request; expected 1 to {cores()}, the cores this process may use")
    for file in report_files(Path(out)).values():  # measuring takes minutes; a wrong place is told before
        check_writable(file)
    subjects = read_subjects(paths)
    say(f"collapsing and counting: {', '.join(subject.label for subject in subjects)}")
    candidates, notes = assemble(subjects)
    tasks = _tasks(subjects)
    before = load()
    opened, latency = _run(candidates, subjects[0].info, tasks, plan or (QUICK if quick else FULL), threads, say)
    report = Report(
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        command=_command(paths, out, quick, threads),
        paths=tuple({"path": str(each.path), "form": each.form, "sha256": each.sha256} for each in subjects),
        tasks=tasks,
        input=subjects[0].info.input,
        baseline=latency.baseline,
        candidates=candidate_reports(candidates, opened, latency, len(tasks)),
        sharing=_sharing(subjects),
        accuracy=tuple(accuracies(subjects)),
        latency={
            **{"runtime": "onnxruntime", "threads": threads, "batch": 1, "seed": latency.seed},
            "rounds": len(latency.measurements[0].samples_ms),
        },
        environment=environment(threads, before),
        warnings=tuple(latency.complaints),
        notes=tuple(notes),
    )
    files = write_report(report, Path(out))
    say(f"wrote {', '.join(str(file) for file in files.values())}")
    return report


def _run(
    candidates: Sequence[Candidate], info: ModelInfo, tasks: Sequence[Task], plan: Plan, threads: int, say: Say
) -> tuple[list[Opened], Latency]:
    """Export, open and time all candidates."""
    info = ModelInfo(tuple(tasks), info.input, info.form)
    names = [candidate.name for candidate in candidates]
    with tempfile.TemporaryDirectory(prefix="gatedeploy-bench-") as folder, ExitStack() as stack:
        opened = []
        for candidate in candidates:
            say(f"exporting: {candidate.name}")
            opened.append(open_candidate(candidate, info, Path(folder), threads, stack))
        say(f"measuring for about {plan.seconds:.0f} s, in turns: {', '.join(names)}")
        runners = {ran.name: ran.runners for ran in opened}
        baseline = BASELINE if BASELINE in names else names[0]
        return opened, measure(runners, picture(info.input), baseline, plan, seed=SEED)


def _tasks(subjects: Sequence[Subject]) -> tuple[Task, ...]:
    """The tasks in the order of the first network that answers all of them."""
    by_name: dict[str, Task] = {}
    for subject in sorted(subjects, key=lambda subject: subject.form == "single"):
        for task in subject.info.tasks:
            by_name.setdefault(task.name, task)
    return tuple(by_name.values())


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


def _command(paths: Sequence[Path | str], out: Path | str, quick: bool, threads: int) -> str:
    options = ["--quick"] if quick else []
    if threads != 1:
        options += ["--threads", str(threads)]
    return shlex.join(["gatedeploy", "bench", *map(str, paths), *options, "--out", str(out)])
