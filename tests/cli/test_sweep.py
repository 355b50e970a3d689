"""`gatedeploy sweep` as a user types it: in several processes, killed in the middle, and with what cannot be."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from gatedeploy.cli.app import run
from tests.sweep.small import BACKBONE, write_recipe

ASKED = ["sweep", "small.yaml", "--backbone", BACKBONE, "--over", "sparsity.weight=0,1,50", "--seeds", "1"]

DIES = """
import os, signal
from gatedeploy.training import loop

write = loop.write_snapshot


def write_and_die(path, *more):
    write(path, *more)
    if path.parts[-4:] == ("trials", "1", "gated", "checkpoint.pt"):
        os.kill(os.getpid(), signal.SIGKILL)


loop.write_snapshot = write_and_die
from gatedeploy.cli import main

main()
"""
"""The program, which is killed as soon as the first epoch of trial 1 is on the disk."""


def started(folder: Path, *words: str) -> subprocess.Popen[str]:
    root = str(Path(__file__).parents[2])
    # As many threads as here, or sums would round differently.
    env = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    words = (sys.executable, *words)
    return subprocess.Popen(words, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def trials(out: Path) -> list[tuple[Any, ...]]:
    """What Optuna itself reads of the study, but for when things happened."""
    storage = JournalStorage(JournalFileBackend(str(out / "journal.log")))
    study = optuna.load_study(study_name=out.name, storage=storage)
    read = study.get_trials()
    return [(each.number, each.state.name, each.params, each.values, each.user_attrs) for each in read]


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A study that two workers did, started at the same moment, and what each of them told."""
    folder = tmp_path_factory.mktemp("together")
    write_recipe(folder)
    workers = [started(folder, "-m", "gatedeploy", *ASKED, "--out", "study", "--json") for _ in range(2)]
    told = []
    for worker in workers:
        out, err = worker.communicate(timeout=900)
        assert worker.returncode == 0, err
        assert len(json.loads(out)["trials"]) == 3
        told.append(err)
    return folder / "study", told


@pytest.mark.slow
def test_two_workers_do_everything_once(together: tuple[Path, list[str]]) -> None:
    out, told = together
    begun = [
        number for each in told for number in re.findall(r"^Trial (\d+) \(3 in all\): sparsity", each, re.MULTILINE)
    ]
    assert sorted(begun) == ["0", "1", "2"]
    assert all("Trial" in each for each in told)  # or they did not share the work
    epochs = re.findall(r"^(\w+(?: \w+)?): epoch 1 of", "\n".join(told), re.MULTILINE)
    once = ["start depth", "start normals", "single depth", "single normals", "shared"]
    assert sorted(epochs) == sorted([*once, *["gated"] * 3])
    assert [(number, state) for number, state, *_ in trials(out)] == [(number, "COMPLETE") for number in range(3)]


@pytest.mark.slow
def test_the_files_say_what_the_study_says(together: tuple[Path, list[str]]) -> None:
    out, _ = together
    study = trials(out)
    assert [params for _, _, params, _, _ in study] == [
        {"sparsity.weight": weight, "train.seed": 0.0} for weight in (0.0, 1.0, 50.0)
    ]
    with (out / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [[float(row["delta_mtl"]), float(row["macs"])] for row in rows] == [values for _, _, _, values, _ in study]
    for row, (*_, known) in zip(rows, study, strict=True):
        assert float(row["depth.rmse"]) == known["measured"]["metrics"]["depth"]["rmse"]
    # All of 0 is specific, and so costs what single-task networks do; all of 50 is shared: what uniform MTL costs.
    page = (out / "sweep.md").read_text()
    assert "3 trials: 3 complete, 0 running, 0 waiting, 0 failed" in page
    shares = {row["sparsity.weight"]: float(row["share_of_single"]) for row in rows}
    assert shares["0"] == 1
    uniform = next(line for line in page.splitlines() if line.startswith("| uniform MTL"))
    assert f"| {100 * shares['50']:.1f} |" in uniform
    gain = re.escape(f"{float(rows[2]['delta_mtl']):+.2f}")
    assert re.search(rf"^\| 50 \| 1 \| .* \| {gain} \| ", page, re.MULTILINE)
    for name in ("pareto.svg", "pareto.png"):
        assert (out / name).stat().st_size > 1000


@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on_and_ends_with_the_same_study(
    together: tuple[Path, list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    write_recipe(tmp_path)
    first = started(tmp_path, "-c", DIES, *ASKED, "--out", "study")
    _, told = first.communicate(timeout=900)
    assert first.returncode == -signal.SIGKILL, told
    left = trials(tmp_path / "study")
    assert [state for _, state, *_ in left] == ["COMPLETE", "RUNNING", "WAITING"]
    monkeypatch.chdir(tmp_path)
    assert run([*ASKED, "--out", "study"]) == 0
    assert trials(tmp_path / "study") == trials(together[0])
    said = capfd.readouterr().err
    assert re.findall(r"^Trial (\d) \(3 in all\): s", said, re.MULTILINE) == ["1", "2"]
    assert re.findall(r"^gated: epoch (\d) of 2", said, re.MULTILINE) == ["2", "1", "2"]
    tables = [(folder / "sweep.csv").read_text() for folder in (tmp_path / "study", together[0])]
    assert tables[0] == tables[1]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_recipe(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--over", "sparsity.wieght=1"], "--over sparsity.wieght=1: small.yaml: sparsity.wieght: no such key; "),
        (["--over", "sparsity.weight=-1"], "--over sparsity.weight=-1: small.yaml: sparsity.weight: must be a number "),
        (["--over", "data.size=16"], "--over data.size: networks are compared on the same pictures; "),
        (["--over", "sparsity.weight=1", "--storage", "nonsense"], "--storage: no URL of a data base; expected "),
        (
            ["--over", "sparsity.weight=1", "--slurm-set", "partition=gpu"],
            "--slurm-set: is for jobs of Slurm; say how many with --slurm",
        ),
        (
            ["--over", "sparsity.weight=1", "--slurm", "2", "--slurm-set", "gpu"],
            "--slurm-set 'gpu': expected key=value",
        ),
        (
            ["--over", "sparsity.weight=1", "--slurm", "2"],
            "--slurm: there is no Slurm here (srun is not on the path); type it where jobs are submitted",
        ),
    ],
)
def test_what_cannot_be_is_told_in_one_sentence(
    here: Path, words: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert run(["sweep", "small.yaml", "--backbone", BACKBONE, *words]) == 2
    said = capsys.readouterr().err
    assert next(line for line in said.splitlines() if line.startswith("error: ")).startswith(f"error: {message}")
    assert not list(here.rglob("*.pt"))
    assert not list(here.glob("sweep*")), "what was refused left something behind"


@pytest.mark.parametrize(("library", "words"), [("optuna", []), ("submitit", ["--slurm", "1"])])
def test_a_library_that_is_not_installed(
    here: Path, library: str, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    assert run([*ASKED, *words]) == 2
    assert f"needs {library}, which is not installed: pip install 'gatedeploy[sweep]'" in capsys.readouterr().err
