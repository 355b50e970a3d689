"""What the commands that measure show on screen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gatedeploy.cli.measure import show_report
from gatedeploy.cli.screen import table
from tests.benchmarks.tiny import some_candidate, some_report

OURS = (some_candidate("collapsed", "Collapsed", 1300, 1.5), some_candidate("bundle", "Bundle", 1300, 1.2))


def test_ratios_refer_to_the_shared_encoder(capsys: pytest.CaptureFixture[str]) -> None:
    show_report(some_report(("noisy",)), Path("report"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("  ")[0] == "one request"
    assert lines[0].count("to shared") == 2
    assert lines[2].split() == "One shared encoder 1.00 k 1.00 1.00 1.00".split()
    assert lines[-3:] == ["Note: no experts <here>", "Warning: noisy", f"Report: {Path('report/report.html')}"]


def test_without_a_shared_encoder_ratios_refer_to_what_they_say(capsys: pytest.CaptureFixture[str]) -> None:
    show_report(replace(some_report(), baseline="collapsed", candidates=OURS), Path("report"))
    said = capsys.readouterr().out
    assert said.splitlines()[0].count("to collapsed") == 2
    assert "to shared" not in said


def test_one_candidate_is_compared_with_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    show_report(replace(some_report(), baseline="bundle", candidates=OURS[1:]), Path("report"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["one", "request", "MACs", "milliseconds"]
    assert lines[1].split() == ["Bundle", "1.30", "k", "1.20"]
    assert lines[2] == "Note: no experts <here>"


def test_a_table_that_is_too_wide_loses_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    table(["", "MACs", "long " * 30, "long " * 30], [["name", "1.30 k", "1.00", "2.00"]])
    assert capsys.readouterr().out.splitlines()[-1].split() == ["name", "1.30", "k", "1.00", "2.00"]
