"""The loader's table, with few pictures and a clock that is told what to say."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import pytest

from gatedeploy.benchmarks import loading
from gatedeploy.benchmarks.loading import Rates, decode, measure
from gatedeploy.data import load_data


def test_ratios_are_of_rounds() -> None:
    assert Rates([10, 20, 40], [9, 10, 50]).ratios == [0.5, 0.9, 1.25]


def test_time_is_told_apart(tmp_path: Path) -> None:
    # A batch looks three times: 1 second to decode, 4 to load.
    times = itertools.accumulate(itertools.cycle((0, 1, 4)))
    rates = measure("celeba", tmp_path, pictures=3, rounds=2, clock=lambda: float(next(times)))
    assert rates == Rates([3.0, 3.0], [0.75, 0.75])


@pytest.mark.parametrize("name", ["nyud", "pascal_context", "taskonomy"])
def test_made_up_files_are_what_the_data_set_reads(tmp_path: Path, name: str) -> None:
    subject = loading.SUBJECTS[name]
    files = subject.write(tmp_path, 1)
    data = load_data(name, root=tmp_path, **subject.options)
    images, labels = data.train.batch([0])
    assert images.shape == (1, *data.input.shape)
    assert set(labels) == {task.name for task in data.tasks}
    for file in files[0]:
        assert decode(file) is not None


def test_a_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["loading", "--data", "celeba", "--pictures", "2", "--rounds", "1"])
    loading.main()
    head, _, cells = capsys.readouterr().out.strip().splitlines()[-3:]
    assert head.count("|") == cells.count("|") == 6
    assert cells.startswith("| celeba | ")
