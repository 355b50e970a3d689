from __future__ import annotations

import errno
import io
from pathlib import Path

import pytest
from rich.console import Console

from gatedeploy.training.events import EventFile
from gatedeploy.training.journal import Journal


def full_disk(self: EventFile, event: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.filterwarnings("error")  # a file that is left open warns
@pytest.mark.parametrize("from_the_first", [True, False])
def test_a_disk_that_is_full_ends_the_curves_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, from_the_first: bool
) -> None:
    console = Console(file=io.StringIO())
    if from_the_first:
        monkeypatch.setattr(EventFile, "_write", full_disk)
    with Journal(console).run("gated", tmp_path, steps=3, first_step=0) as run:
        monkeypatch.setattr(EventFile, "_write", full_disk)
        run.steps(1, {"loss/depth": 1.0})
        run.steps(2, {"loss/depth": 0.5})
    assert isinstance(console.file, io.StringIO)
    said = console.file.getvalue().split("\n")
    assert said == ["gated: TensorBoard's file cannot be written (No space left on device); going on without", ""]
