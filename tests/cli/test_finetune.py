"""`gatedeploy prune --finetune`: a network whose gates were flipped is trained on, from its checkpoint alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from gatedeploy.artifact import read_collapsed
from gatedeploy.assembly import build_parts
from gatedeploy.cli.app import run
from gatedeploy.graph.cost import cost
from gatedeploy.program import evaluate
from gatedeploy.training.losses import task_loss
from gatedeploy.training.recipe_file import load_recipe
from gatedeploy.training.stages import train_recipe

pytestmark = pytest.mark.slow  # several seconds of training

RECIPE = """
data: {name: scenes, train: 32, val: 8, size: 16}
model: {backbone: {name: resnet20, width: 0.125}, head: {name: dense, width: 8}}
tasks: {segmentation: {}, depth: {}}
train: {epochs: 1, single_epochs: 0, rivals: false, batch_size: 8, learning_rate: 1.0e-2}
sparsity: {weight: 0}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `recipe.yaml` and the `checkpoint.pt` that came of it."""
    folder = tmp_path_factory.mktemp("finetune")
    (folder / "recipe.yaml").write_text(RECIPE)
    recipe, parts = build_parts(load_recipe(str(folder / "recipe.yaml")), "recipe.yaml")
    train_recipe(recipe, parts, folder)
    return folder


def loss(file: Path, place: Path) -> float:
    """Of what it predicts for all pictures that it was trained on, without weights of tasks."""
    program, info = read_collapsed(file)
    _, parts = build_parts(load_recipe(str(place / "recipe.yaml")), "recipe.yaml")
    images, labels = parts.data.train.batch(range(32))
    predicted = evaluate(program, images, torch.float32)
    return float(sum(task_loss(task, predicted[task.name], labels[task.name]) for task in info.tasks))


def test_it_learns_and_is_measured(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flipped, trained = tmp_path / "flipped.safetensors", tmp_path / "trained.safetensors"
    asked = ["prune", str(place / "checkpoint.pt"), "--budget", "0.5", "--optimize", "none"]
    assert run([*asked, "--out", str(flipped)]) == 0
    capsys.readouterr()
    assert run([*asked, "--out", str(trained), "--finetune", "3", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert loss(trained, place) < loss(flipped, place)
    (before, unmeasured), (after, info) = read_collapsed(flipped), read_collapsed(trained)
    assert not unmeasured.metrics
    assert info.metrics == told["metrics"]
    assert set(told["metrics"]) == {"segmentation", "depth"}
    assert info.report["finetuned_epochs"] == 3
    assert info.form == "collapsed"
    assert cost(after) == cost(before)


def test_what_it_reached_is_shown_beside_what_was_trained(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["prune", str(place / "checkpoint.pt"), "--out", str(tmp_path / "thin.safetensors"), "--optimize", "none"]
    assert run([*asked, "--finetune", "1", "--data", str(place / "recipe.yaml")]) == 0
    shown = capsys.readouterr().out
    assert "after 1 epoch more" in shown
    assert "as trained" in shown
    assert "has to be measured anew" not in shown


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--data", "demo"], "--data does nothing without --finetune EPOCHS"),
        (["--finetune", "1", "--data", "usgra"], "data"),
        (["--finetune", "0"], "Invalid value for '--finetune'"),
    ],
)
def test_bad_input(
    more: list[str], message: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "thin.safetensors"
    assert run(["prune", str(place / "checkpoint.pt"), "--out", str(out), *more]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_a_network_without_a_recipe_has_no_pictures(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "thin.safetensors"
    assert run(["prune", str(folder / "checkpoint.pt"), "--out", str(out), "--finetune", "1"]) == 2
    assert "names no recipe, so there are no pictures of its own" in capsys.readouterr().err
