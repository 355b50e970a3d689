"""Workers of a sweep as jobs of Slurm, by submitit."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gatedeploy.doctor import logging_left_alone
from gatedeploy.errors import InputError, MissingExtraError, first_line
from gatedeploy.training.recipe_file import parse_yaml

if TYPE_CHECKING:  # submitit is optional
    from submitit import Job

SHARED = ("name", "timeout_min", "mem_gb", "nodes", "cpus_per_task", "gpus_per_node", "tasks_per_node")
"""Parameters that submitit knows for every cluster; others are Slurm's own."""

HOURS = 24
"""How long a worker may run unless `--slurm-set timeout_min=…` says otherwise; submitit's own default is 5 minutes."""


def read_settings(asked: Sequence[str]) -> dict[str, Any]:
    """Read `--slurm-set key=value` options, the values in YAML.

    Raises:
        InputError: one is no `key=value`.
    """
    settings = {}
    for option in asked:
        key, equals, text = option.partition("=")
        if not equals or not key.isidentifier():
            raise InputError(f"--slurm-set {option!r}: expected key=value such as partition=gpu or timeout_min=600")
        settings[key] = parse_yaml(text, f"--slurm-set {key}")
    return settings


def check_slurm() -> None:
    """Raise `InputError` where no job can be submitted: submitit is not installed, or there is no Slurm."""
    try:
        with logging_left_alone():
            import submitit
    except ModuleNotFoundError as error:
        if error.name != "submitit":
            raise
        raise MissingExtraError("--slurm", "submitit", "sweep") from None
    if submitit.SlurmExecutor.affinity() < 0:
        raise InputError("--slurm: there is no Slurm here (srun is not on the path); type it where jobs are submitted")


def submit(
    words: Sequence[str], workers: int, folder: Path, settings: Mapping[str, Any], cluster: str = "slurm"
) -> list[Job[str]]:
    """Submit the same command line several times.

    Args:
        words: of `gatedeploy`, without its name.
        workers: how many jobs.
        folder: where submitit keeps scripts and logs.
        settings: submitit's own parameters, such as timeout_min and gpus_per_node, and any others of Slurm's, such as
            partition.
        cluster: of submitit's; "local" starts processes here.

    Raises:
        InputError: a parameter is wrong, or the jobs are refused.
    """
    with logging_left_alone():
        import submitit
        from submitit.core.utils import FailedJobError, FailedSubmissionError
    executor = submitit.AutoExecutor(folder, cluster=cluster)
    given = {key if key in SHARED else f"slurm_{key}": value for key, value in settings.items()}
    try:
        executor.update_parameters(**{"name": "gatedeploy-sweep", "timeout_min": 60 * HOURS, **given})
    except (NameError, AssertionError) as error:
        raise InputError(f"--slurm-set: {first_line(error)}") from None
    command = submitit.helpers.CommandFunction([sys.executable, "-m", "gatedeploy", *words])
    try:
        with executor.batch():  # one array of jobs
            jobs = [executor.submit(command) for _ in range(workers)]
    except (OSError, FailedJobError, FailedSubmissionError) as error:
        raise InputError(f"--slurm: the jobs were not taken: {first_line(error)}") from error
    return jobs
