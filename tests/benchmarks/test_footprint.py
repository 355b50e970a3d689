"""Measuring in a process of its own, and what becomes of it when something goes wrong."""

from __future__ import annotations

import multiprocessing
import signal
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from gatedeploy.benchmarks import footprint
from gatedeploy.benchmarks.footprint import measure_footprint, unreached_by_ctrl_c
from gatedeploy.errors import GatedeployError, InputError
from tests.benchmarks.tiny import image


def test_what_goes_wrong_there_is_told_here(tmp_path: Path) -> None:
    (tmp_path / "no.onnx").write_bytes(b"no")
    with pytest.raises(InputError, match=r"no\.onnx"):
        measure_footprint([tmp_path / "no.onnx"], "onnxruntime", 1, image())


def test_a_process_that_ends_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(footprint, "_send", exec)  # is told to end at once
    with pytest.raises(GatedeployError, match=r"that loads .* ended by itself \(exit code 1\)"):
        measure_footprint([tmp_path / "no.onnx"], "onnxruntime", 1, image())


@pytest.fixture
def heeding_ctrl_c() -> Iterator[None]:
    """Ctrl-C is heeded by us and by what we start, though it is not where tests run in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeding_ctrl_c")
def test_what_is_started_is_not_told_of_ctrl_c_and_we_are_again() -> None:
    tell = [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGINT); print('still here')"]
    with unreached_by_ctrl_c():
        assert subprocess.run(tell, capture_output=True, text=True).stdout == "still here\n"
    told = subprocess.run(tell, capture_output=True, text=True)
    assert told.stdout == ""
    assert told.stderr.endswith("KeyboardInterrupt\n")


def test_interrupted_it_leaves_no_process_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(connection: Connection) -> None:
        assert multiprocessing.active_children()
        raise KeyboardInterrupt

    monkeypatch.setattr(Connection, "recv", interrupted)
    with pytest.raises(KeyboardInterrupt):
        measure_footprint([tmp_path / "no.onnx"], "onnxruntime", 1, image())
    assert multiprocessing.active_children() == []
