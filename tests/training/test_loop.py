from __future__ import annotations

import io
import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn

from gatedeploy.artifact import read_checkpoint
from gatedeploy.errors import CheckError, InputError
from gatedeploy.gating.multi_head import MultiHead
from gatedeploy.gating.network import GatedNetwork
from gatedeploy.program import evaluate
from gatedeploy.training import loop
from gatedeploy.training.batches import Batch
from gatedeploy.training.journal import Journal
from gatedeploy.training.loop import fit
from gatedeploy.training.recipe import Recipe
from gatedeploy.training.run import Run
from gatedeploy.training.snapshots import read_snapshot
from gatedeploy.training.stages import gated_network
from tests.training.made_up import TASKS, Head, MadeUp, Noise, make_backbone, parts, recipe, without_dropout


def quiet() -> Journal:
    return Journal(Console(file=io.StringIO()), tensorboard=False)


def gated_run(
    folder: Path, made: Recipe, data: MadeUp | None = None, backbone: Callable[[], nn.Module] = make_backbone
) -> Run:
    torch.manual_seed(7)
    built = parts(data, backbone)
    tasks = made.chosen_tasks(TASKS)
    return Run("gated", gated_network(made, built, tasks, {}), tasks, made.train.epochs, made, built.data, folder)


def shared_run(folder: Path, made: Recipe, data: MadeUp | None = None) -> Run:
    torch.manual_seed(7)
    network = MultiHead(make_backbone(), {task.name: Head(task) for task in TASKS})
    return Run("shared", network, TASKS, made.train.epochs, made, data or MadeUp(), folder)


class Faulty(Noise):
    """Its batches are wrong from the n-th on."""

    def __init__(self, good: int, how: str) -> None:
        super().__init__(24, 1)
        self.good = good
        self.how = how

    def batch(self, indices: Sequence[int], /) -> Batch:
        images, labels = super().batch(indices)
        if len(self.asked) > self.good:
            if self.how == "interrupt":
                raise KeyboardInterrupt
            if self.how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            labels["depth"] = labels["depth"] + math.inf
        return images, labels


def same(left: object, right: object) -> bool:
    """Equal bit for bit, whatever is nested in what."""
    if isinstance(left, torch.Tensor):
        return isinstance(right, torch.Tensor) and torch.equal(left, right)
    if isinstance(left, dict):
        return isinstance(right, dict) and list(left) == list(right) and all(same(left[k], right[k]) for k in left)
    if isinstance(left, list):
        return isinstance(right, list) and len(left) == len(right) and all(map(same, left, right))
    return left == right


@pytest.mark.parametrize("make_run", [gated_run, shared_run])
def test_training_learns(tmp_path: Path, make_run: type) -> None:
    slow, fast = recipe(epochs=1), recipe(epochs=12, train={"learning_rate": 0.02})
    before = fit(make_run(tmp_path / "a", slow), quiet())
    after = fit(make_run(tmp_path / "b", fast), quiet())
    assert after.metrics["depth"]["rmse"] < 0.8 * before.metrics["depth"]["rmse"]
    assert after.metrics["normals"]["mean_angle"] < before.metrics["normals"]["mean_angle"]


def test_the_checkpoint_holds_the_network_as_it_is(tmp_path: Path) -> None:
    run = gated_run(tmp_path, recipe())
    info = fit(run, quiet())
    checkpoint = read_checkpoint(tmp_path / "checkpoint.pt")
    images = torch.randn(3, 3, 8, 8)
    predicted = evaluate(checkpoint.program, images)
    for name, expected in run.network.double().eval()(images.double()).items():
        torch.testing.assert_close(predicted[name], expected)
    assert checkpoint.info == info
    assert (info.form, info.tasks, info.recipe) == ("gated", TASKS, run.recipe.plain())
    assert set(info.metrics) == {task.name for task in TASKS}


def interrupted(folder: Path, made: Recipe, good: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(gated_run(folder, made, MadeUp(Faulty(good, "interrupt"))), quiet())


FOUR = recipe(epochs=4, sparsity={"weight": 5.0}, gates={"freeze_at": 0.6, "learning_rate": 1.0})

CHILD = """
import sys, torch
from pathlib import Path
torch.set_num_threads(1)
from tests.training import made_up
from tests.training.test_loop import FOUR, Faulty, fit, gated_run, loop, quiet
loop.WORTH_IT = 1
folder, backbone, good = Path(sys.argv[1]), getattr(made_up, sys.argv[2]), int(sys.argv[3])
fit(gated_run(folder, FOUR, made_up.MadeUp(Faulty(good, "kill")), backbone), quiet(), resume=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "good"),
    [(make_backbone, 2 * 3 + 1), (without_dropout, 3 * 3 + 2)],  # 3 batches an epoch, of which 8 move gates
    ids=["while gates move", "while they stand still"],
)
def test_a_run_killed_and_resumed_in_a_fresh_process_ends_with_the_same_bits(
    backbone: Callable[[], nn.Module], good: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    monkeypatch.setattr(loop, "WORTH_IT", 1)
    fit(gated_run(whole, FOUR, backbone=backbone), quiet())
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    for left, status in ((good, -signal.SIGKILL), (1000, 0)):
        command = [sys.executable, "-c", CHILD, str(broken), backbone.__name__, str(left)]
        assert subprocess.run(command, env=environment).returncode == status
        if status:
            assert read_snapshot(broken / "checkpoint.pt").epochs == good // 3

    ours, theirs = (read_snapshot(folder / "checkpoint.pt") for folder in (whole, broken))
    assert same(ours.network, theirs.network)
    assert same(ours.optimisers, theirs.optimisers)
    assert ours.info == theirs.info


def test_an_interrupted_run_leaves_the_checkpoint_of_its_last_whole_epoch(tmp_path: Path) -> None:
    interrupted(tmp_path, FOUR, good=4)
    assert read_snapshot(tmp_path / "checkpoint.pt").epochs == 1
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_resuming_what_is_done_changes_nothing(tmp_path: Path) -> None:
    made = recipe(epochs=1)
    info = fit(gated_run(tmp_path, made), quiet())
    before = (tmp_path / "checkpoint.pt").read_bytes()
    run = gated_run(tmp_path, made)
    journal = quiet()
    assert fit(run, journal, resume=True) == info
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert same(dict(run.network.state_dict()), read_snapshot(tmp_path / "checkpoint.pt").network)
    assert isinstance(journal.console.file, io.StringIO)
    assert journal.console.file.getvalue() == "gated: 1 epochs are done already\n"


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (recipe(epochs=3), "train.epochs was 1 and is now 3"),
        (recipe(epochs=1, sparsity={"weight": 1.0}), "sparsity.weight was 0.0 and is now 1.0"),
        (recipe(epochs=1, train={"schedule": {"name": "constant"}}), "train.schedule.name was 'polynomial' and is"),
        (recipe(epochs=1, tasks={"depth": {}}), "tasks.depth was None and is now {"),
    ],
)
def test_resume_refuses_another_recipe(tmp_path: Path, other: Recipe, difference: str) -> None:
    fit(gated_run(tmp_path, recipe(epochs=1)), quiet())
    sentence = (
        rf"checkpoint\.pt: is of another recipe: {re.escape(difference)}.*Resume with the recipe it was begun with"
    )
    with pytest.raises(InputError, match=sentence):
        fit(gated_run(tmp_path, other), quiet(), resume=True)


def test_resume_refuses_another_form_and_ignores_what_does_not_concern_it(tmp_path: Path) -> None:
    fit(shared_run(tmp_path, recipe(epochs=1)), quiet())
    fit(shared_run(tmp_path, recipe(epochs=1, sparsity={"weight": 1.0}, train={"rivals": True})), quiet(), resume=True)
    with pytest.raises(InputError, match=r"is of another recipe: train\.epochs was 1 and is now 9"):
        fit(shared_run(tmp_path, recipe(epochs=9)), quiet(), resume=True)
    with pytest.raises(InputError, match=r"is of another recipe: form was 'shared' and is now 'gated'"):
        fit(gated_run(tmp_path, recipe(epochs=1)), quiet(), resume=True)


def test_what_a_gated_network_starts_from_knows_nothing_of_its_epochs(tmp_path: Path) -> None:
    first, longer = (replace(shared_run(tmp_path, recipe(epochs=n)), stage="start", epochs=1) for n in (1, 9))
    fit(first, quiet())
    fit(longer, quiet(), resume=True)


def test_resume_refuses_another_network(tmp_path: Path) -> None:
    fit(shared_run(tmp_path, recipe(epochs=1)), quiet())
    run = shared_run(tmp_path, recipe(epochs=1))
    other = MultiHead(torch.nn.Conv2d(3, 8, 1), {task.name: Head(task) for task in TASKS})
    with pytest.raises(InputError, match=r"checkpoint\.pt: holds the weights of another network: "):
        fit(replace(run, network=other), quiet(), resume=True)


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    run = gated_run(tmp_path, recipe(epochs=3), MadeUp(Faulty(3 + 1, "infinite")))
    sentence = (
        r"^gated: epoch 2, step 4: task depth: the loss is inf\. Try a lower train\.learning_rate \(now 0\.001\), "
        r"train\.precision=32-true, and look for wrong labels\. .*checkpoint\.pt is still that of the epoch before\.$"
    )
    with pytest.raises(CheckError, match=sentence):
        fit(run, quiet())
    assert read_snapshot(path).epochs == 1


def test_a_weight_that_is_no_number_stops_the_run(tmp_path: Path) -> None:
    made = recipe(epochs=1, train={"learning_rate": 1e38, "batch_size": 24})
    with pytest.raises(CheckError, match=r"^shared: epoch 1, step 1: a weight is no number\. Try a lower .* labels\.$"):
        fit(shared_run(tmp_path, made), quiet())
    assert not (tmp_path / "checkpoint.pt").exists()


def alphas(folder: Path) -> dict[str, torch.Tensor]:
    return {name: value for name, value in read_snapshot(folder / "checkpoint.pt").network.items() if "_logits" in name}


def test_gates_move_until_they_are_frozen(tmp_path: Path) -> None:
    moving = recipe(epochs=2, sparsity={"weight": 10.0}, gates={"freeze_at": 1.0})
    frozen = recipe(epochs=2, sparsity={"weight": 10.0}, gates={"freeze_at": 0.0})
    start = {
        name: value.clone()
        for name, value in gated_run(tmp_path, moving).network.state_dict().items()
        if "_logits" in name
    }
    fit(gated_run(tmp_path / "moving", moving), quiet())
    fit(gated_run(tmp_path / "frozen", frozen), quiet())
    assert same(alphas(tmp_path / "frozen"), start)
    assert all(
        not torch.equal(value, start[name]) for name, value in alphas(tmp_path / "moving").items() if "gates" in name
    )


def test_the_penalty_makes_tasks_share(tmp_path: Path) -> None:
    def share(weight: float) -> float:
        # 24 steps: the drift of a gate is rate · λ_s · steps / (4 · tasks · sites) = 10 · λ_s · 24 / 32.
        made = recipe(epochs=8, sparsity={"weight": weight, "ramp": 0.0}, gates={"learning_rate": 10.0})
        run = gated_run(tmp_path / str(weight), made)
        fit(run, quiet())
        assert isinstance(run.network, GatedNetwork)
        return max(run.network.specific_share().values())

    assert share(0.0) > 0.4
    assert share(1.0) == 0.0


def test_scalars_and_lines_tell_of_the_run(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    journal = Journal(Console(file=io.StringIO()))
    fit(gated_run(tmp_path, recipe(epochs=2, sparsity={"weight": 1.0})), journal)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    names = [task.name for task in TASKS]
    assert tags >= {f"loss/{name}" for name in (*names, "sparsity")} | {f"specific/{name}" for name in names}
    assert tags >= {"learning_rate", "metric/depth/rmse", "metric/depth/absolute_error", "metric/parts/mean_iou"}
    assert [event.step for event in events.Scalars("loss/depth")] == [3, 6]
    assert isinstance(journal.console.file, io.StringIO)
    line = journal.console.file.getvalue().splitlines()[-1]
    assert re.fullmatch(
        r"gated: epoch 2 of 2: colour accuracy [\d.]+, .*, specific 1\.00 / 1\.00 / 1\.00 / 1\.00", line
    )


def test_mixed_precision_trains(tmp_path: Path) -> None:
    info = fit(gated_run(tmp_path, recipe(train={"precision": "bf16-mixed"})), quiet())
    assert all(
        weight.dtype != torch.bfloat16
        for weight in read_checkpoint(tmp_path / "checkpoint.pt").program.weights.values()
    )
    assert info.metrics["depth"]["rmse"] < 10


@pytest.mark.parametrize(
    ("train", "sentence"),
    [
        ({"accelerator": "gpu"}, r"train\.accelerator: gpu was asked for and PyTorch sees none; take auto or cpu"),
        ({"precision": "16-mixed"}, r"train\.precision: 16-mixed needs a GPU; on a CPU take 32-true or bf16-mixed"),
    ],
)
def test_what_this_machine_cannot_do_is_said(
    tmp_path: Path, train: dict[str, str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=sentence):
        fit(shared_run(tmp_path, recipe(train=train)), quiet())
