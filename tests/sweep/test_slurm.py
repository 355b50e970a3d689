"""Workers as jobs: what Slurm would be given, and that a job is the same command."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import pytest
from submitit.core.utils import CommandFunction, DelayedSubmission

from gatedeploy import __version__
from gatedeploy.errors import InputError
from gatedeploy.sweep.slurm import read_settings, submit

WORDS = ["sweep", "my recipe.yaml", "--over", "sparsity.weight=0.1,0.5"]


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Slurm that takes every script, keeps a copy and runs nothing."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, does in (("srun", "exit 1"), ("sbatch", f"cp $1 {tmp_path}/script; echo Submitted batch job 71")):
        (programs / name).write_text(f"#!/bin/sh\n{does}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    return tmp_path / "script"


def test_what_slurm_is_given(slurm: Path, tmp_path: Path) -> None:
    settings = read_settings(["partition=gpu", "gpus_per_node=1", "timeout_min=90"])
    jobs = submit(WORDS, 3, tmp_path / "logs", settings)
    assert [job.job_id for job in jobs] == ["71_0", "71_1", "71_2"]
    asked = [line.removeprefix("#SBATCH --") for line in slurm.read_text().splitlines() if line.startswith("#SBATCH")]
    assert {"array=0-2%3", "partition=gpu", "gpus-per-node=1", "time=90", "job-name=gatedeploy-sweep"} <= set(asked)
    for number in range(3):
        job = DelayedSubmission.load(tmp_path / "logs" / f"71_{number}_submitted.pkl")
        assert isinstance(job.function, CommandFunction)
        assert job.function.command == [sys.executable, "-m", "gatedeploy", *WORDS]


@pytest.mark.parametrize("setting", ["partitoin=gpu", "timeout_min=long"])
def test_a_parameter_that_slurm_does_not_know(slurm: Path, setting: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"--slurm-set: .*{setting.partition('=')[0]}"):
        submit(WORDS, 1, tmp_path / "logs", read_settings([setting]))


def test_handlers_of_logs_stay_open(slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "submitit"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delenv("SUBMITIT_LOG_LEVEL", raising=False)
    log = logging.FileHandler(tmp_path / "log")
    assert submit(WORDS, 1, tmp_path / "logs", {})
    assert log.stream is not None, "importing submitit closed it"
    log.close()
    assert "SUBMITIT_LOG_LEVEL" not in os.environ


@pytest.mark.slow
def test_a_job_runs_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    (job,) = submit(["--version"], 1, tmp_path, {"partition": "gpu"}, cluster="local")
    assert job.result() == __version__
