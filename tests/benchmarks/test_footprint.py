"""Measuring in a process of its own, and what becomes of it when something goes wrong."""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from gatedeploy.benchmarks import footprint
from gatedeploy.benchmarks.footprint import measure_footprint
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


def test_interrupted_it_leaves_no_process_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(connection: Connection) -> None:
        assert multiprocessing.active_children()
        raise KeyboardInterrupt

    monkeypatch.setattr(Connection, "recv", interrupted)
    with pytest.raises(KeyboardInterrupt):
        measure_footprint([tmp_path / "no.onnx"], "onnxruntime", 1, image())
    assert multiprocessing.active_children() == []
