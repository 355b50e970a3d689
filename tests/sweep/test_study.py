"""Who does which trial, and what becomes of it: nothing is trained here."""

from __future__ import annotations

from pathlib import Path

import pytest

from gatedeploy.errors import InputError
from gatedeploy.sweep import study as study_module
from gatedeploy.sweep.records import Measured, Rivals
from gatedeploy.sweep.study import Study, open_study
from gatedeploy.sweep.work import work
from gatedeploy.training.journal import Journal
from tests.sweep.small import plan, write_recipe

MEASURED = Measured({"depth": {"rmse": 2.0}, "normals": {"mean_angle": 30.0}}, 1000, 7)


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    monkeypatch.chdir(tmp_path)
    if "cannot_be_trained" not in request.node.name:  # points are tried out only where that matters: it takes long
        monkeypatch.setattr(study_module, "check_points", lambda plan, some: None)
    return write_recipe(tmp_path)


@pytest.fixture(params=["journal", "sqlite"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str | None:
    return f"sqlite:///{tmp_path / 'trials.db'}" if request.param == "sqlite" else None


def quiet(line: str) -> None:
    """Say nothing."""


def opened(recipe: Path, storage: str | None = None, *over: str, seeds: int = 2, **more: tuple[str, ...]) -> Study:
    return open_study(plan(recipe, *over, seeds=seeds, **more), recipe.parent / "out", storage, quiet)


def states(study: Study) -> list[str]:
    with study.lock():
        return [trial.state for trial in study.found().trials]


def test_two_workers_share_the_trials_and_none_is_there_twice(recipe: Path, storage: str | None) -> None:
    workers = opened(recipe, storage), opened(recipe, storage)
    claims = [workers[number % 2].claim() for number in range(4)]
    trials = [claim.trial for claim in claims if claim is not None]
    assert [(trial.number, trial.point["sparsity.weight"], trial.seed) for trial in trials] == [
        *((0, 0, 0), (1, 50, 0), (2, 0, 1), (3, 50, 1))
    ]
    assert [worker.claim() for worker in workers] == [None, None]
    assert states(workers[0]) == states(workers[1]) == ["running"] * 4
    for number, claim in enumerate(claims):
        assert claim is not None
        with claim.lock:
            workers[number % 2].finish(claim, float(number), MEASURED)
    assert states(opened(recipe, storage)) == ["complete"] * 4
    assert opened(recipe, storage).claim() is None


def test_a_trial_whose_worker_vanished_is_taken_over_by_one(recipe: Path, storage: str | None) -> None:
    first, second, third = (opened(recipe, storage) for _ in range(3))
    lost, kept = first.claim(), second.claim()
    assert lost is not None
    assert kept is not None
    with lost.lock:
        pass  # what the operating system does for a process that was killed
    taken = third.claim()
    assert taken is not None
    assert taken.trial.number == lost.trial.number
    others = [second.claim(), third.claim(), first.claim()]
    assert [claim and claim.trial.number for claim in others] == [2, 3, None]
    with taken.lock:
        third.finish(taken, 1.5, MEASURED)
    with second.lock():
        done = second.found().trials[taken.trial.number]
    assert (done.state, done.values, done.measured) == ("complete", (1.5, 1000.0), MEASURED)


def test_what_the_study_keeps(recipe: Path, storage: str | None) -> None:
    study = opened(recipe, storage, "sparsity.weight=0.1,0.2", "gates.tie=null,residual", seeds=1)
    claim = study.claim()
    assert claim is not None
    study.set_rivals(0, Rivals(MEASURED))
    study.fail(claim, "a weight is no number")
    again = opened(recipe, storage, "sparsity.weight=0.1,0.2", "gates.tie=null,residual", seeds=1)
    with again.lock():
        found = again.found()
    assert [trial.state for trial in found.trials] == ["fail", *["waiting"] * 3]
    assert found.trials[0].error == "a weight is no number"
    assert found.trials[1].point == {"sparsity.weight": 0.1, "gates.tie": "residual"}
    assert found.rivals == {0: Rivals(MEASURED)}
    params = [trial.params for trial in again.optuna.get_trials()]
    assert params[2] == {"sparsity.weight": 0.2, "gates.tie": None, "train.seed": 0.0}


def test_values_and_seeds_may_be_added(recipe: Path, storage: str | None) -> None:
    opened(recipe, storage, "sparsity.weight=0,50", seeds=1)
    study = opened(recipe, storage, "sparsity.weight=50,0,7", seeds=2)
    with study.lock():
        trials = study.found().trials
    assert [(trial.point["sparsity.weight"], trial.seed) for trial in trials] == [
        *((0, 0), (50, 0), (7, 0), (50, 1), (0, 1), (7, 1))
    ]


def test_a_study_of_another_recipe(recipe: Path, storage: str | None) -> None:
    opened(recipe, storage)
    out = recipe.parent / "out"
    with pytest.raises(InputError) as caught:
        opened(recipe, storage, changes=("train.epochs=3",))
    assert str(caught.value) == (
        f"{out}: holds a sweep of another recipe: train.epochs was 2 and is now 3. Go on with what it was begun with, "
        "or choose another --out"
    )
    with pytest.raises(InputError) as caught:
        opened(recipe, storage, "gates.group=1,2")
    assert str(caught.value).startswith(
        f"{out}: holds a sweep of another grid: it varies sparsity.weight, not gates.group; values and seeds may be "
    )
    assert len(states(opened(recipe, storage))) == 4


NEW_TRIAL = '"op_code":4'
"""Optuna's, in its journal."""


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ("sparsity.wieght=0.1", "--over sparsity.wieght=0.1: .*: no such key; .* did you mean 'weight'"),
        ("sparsity.weight=0.1,-1", "--over sparsity.weight=-1: .*: must be a number of at least 0, got -1"),
        ("gates.kind=channel,soft", "--over gates.kind=soft: "),
        ("model.head.wdth=8", "--over model.head.wdth=8: .*wdth"),
    ],
)
def test_a_point_that_cannot_be_trained_is_told_before_there_is_a_trial(recipe: Path, over: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        opened(recipe, None, over)
    assert not list(recipe.parent.rglob("*.pt"))
    assert not (recipe.parent / "out").exists()  # and it is still free for another sweep
    assert len(states(opened(recipe, None))) == 4
    journal = recipe.parent / "out" / "journal.log"
    kept = journal.read_text()
    with pytest.raises(InputError):
        opened(recipe, None, over)
    assert journal.read_text().count(NEW_TRIAL) == kept.count(NEW_TRIAL) == 4


def test_the_folder_of_a_study_stays_the_same(recipe: Path, tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'trials.db'}"
    opened(recipe, storage)
    with pytest.raises(InputError, match=r"out: holds a sweep whose trials lie in sqlite:.*; name --storage sqlite:"):
        opened(recipe, None)
    assert not (tmp_path / "out" / "journal.log").exists()
    with pytest.raises(InputError, match=r"holds a study out already, which was begun in .*:.*/out\. All workers of a"):
        open_study(plan(recipe), tmp_path / "elsewhere" / "out", storage, quiet)
    (tmp_path / "out" / "sweep.json").write_text("{}")
    with pytest.raises(Exception, match=r"sweep.json: not what a sweep wrote"):
        opened(recipe, storage)


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        ("sqlite:////nowhere/at/all.db", "--storage sqlite:////nowhere/at/all.db: cannot be used: "),
        ("postgresql+pg8000://me:secret@host/name", r"@host/name: cannot be used: Failed to import DB access module"),
        ("nonsense", "--storage: no URL of a data base; expected sqlite:///"),
        ("nosuch://me:secret@host/name", r"--storage nosuch://me:\*\*\*@host/name: cannot be used: Can't load plugin"),
    ],
)
def test_a_storage_that_cannot_be_reached(recipe: Path, storage: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        opened(recipe, storage)
    assert "secret" not in str(caught.value)
    assert not (recipe.parent / "out" / "sweep.json").exists()
    assert len(states(opened(recipe, None))) == 4  # the same folder with a storage that can be


def test_a_damaged_journal(recipe: Path) -> None:
    opened(recipe, None)
    journal = recipe.parent / "out" / "journal.log"
    journal.write_text("{nonsense\n" + journal.read_text())
    with pytest.raises(InputError, match=r"journal\.log: a damaged journal: .*\. Choose another --out, or put back a"):
        opened(recipe, None)


@pytest.mark.slow
def test_a_failed_training_is_told_and_the_next_is_taken(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the loop's own check: a learning rate at which weights are no numbers."""
    study = opened(recipe, None, "train.learning_rate=1.0e-3,1.0e+38", seeds=1)
    study.set_rivals(0, Rivals(MEASURED))
    found = work(study, Journal(tensorboard=False), "gatedeploy sweep")
    assert [trial.state for trial in found.trials] == ["complete", "fail"]
    assert "task depth: the loss is nan" in found.trials[1].error
    page = (study.out / "sweep.md").read_text()
    assert f"Trial 1 failed: {found.trials[1].error}" in page
    assert "2 trials: 1 complete, 0 running, 0 waiting, 1 failed" in page
    assert found.trials[0].measured is not None
    assert set(found.trials[0].measured.metrics) == {"depth", "normals"}
