"""`gatedeploy bench`: what networks cost in multiply-adds and milliseconds, beside what one would run instead."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from gatedeploy.benchmarks.against import read_earlier
from gatedeploy.benchmarks.bench_options import BenchOptions
from gatedeploy.benchmarks.candidates import assemble
from gatedeploy.benchmarks.environment import load
from gatedeploy.benchmarks.measured import Measured, Say
from gatedeploy.benchmarks.page import report_files, write_report
from gatedeploy.benchmarks.report import Report
from gatedeploy.benchmarks.subjects import read_subjects
from gatedeploy.files import check_kept, check_writable, held_back


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
        check_kept(file, options.against)
    earlier = read_earlier(options.against) if options.against else None
    subjects = read_subjects(paths)
    say(f"collapsing and counting: {', '.join(subject.label for subject in subjects)}")
    candidates, notes = assemble(subjects, compiled=options.compiled)
    command = shlex.join(["gatedeploy", "bench", *map(str, paths), *options.words, "--out", str(out)])
    before = load()
    with tempfile.TemporaryDirectory(prefix="gatedeploy-bench-") as folder, ExitStack() as stack:
        measured = Measured(options, command, subjects, candidates, notes, earlier, before)
        measured.check()
        measured.open(Path(folder), stack, say)
        measured.look(say)
        try:
            for _ in measured.stages(say):
                report = measured.report()
                with held_back():
                    write_report(report, out)
        except KeyboardInterrupt:
            if measured.latency is not None:
                with held_back():
                    write_report(measured.report(), out)
                say(f"stopped; what was measured is in {out}, and the report says what is missing")
            raise
    say(f"wrote {', '.join(str(file) for file in report_files(out).values())}")
    return report
