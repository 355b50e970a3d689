"""Every way of sharing and of balancing losses trains, resumes and learns on the road of a gated network."""

from __future__ import annotations

import io
import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional as F

from gatedeploy.artifact import read_checkpoint
from gatedeploy.compiler import collapse
from gatedeploy.errors import InputError
from gatedeploy.models.moe import MOE
from gatedeploy.models.registry import METHODS, build_method
from gatedeploy.models.resnet import BasicBlock, ResNet
from gatedeploy.specs import Task
from gatedeploy.training.batches import Batch
from gatedeploy.training.journal import Journal
from gatedeploy.training.metrics import headline
from gatedeploy.training.recipe import Recipe
from gatedeploy.training.snapshots import read_snapshot
from gatedeploy.training.stages import Parts, train_recipe
from tests.training.made_up import Head, MadeUp, Noise, recipe, weights
from tests.training.test_loop import Faulty, same

BALANCES: list[dict[str, Any]] = [
    {"name": name} for name in ("random", "dwa", "uncertainty", "pcgrad", "cagrad", "mgda", "gradnorm", "auto_lambda")
]
BALANCES.append({"name": "mgda", "upper_bound": True})


class Backbone(nn.Module):
    """Two residual blocks, at two resolutions, and dropout, whose state is easily forgotten."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.first, self.second = nn.Conv2d(8, 8, 3, 1, 1), nn.Conv2d(8, 8, 3, 1, 1)
        self.third, self.fourth = nn.Conv2d(8, 8, 3, 1, 1), nn.Conv2d(8, 8, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = F.relu(x + self.second(F.relu(self.first(x))))
        return F.relu(x + self.fourth(F.dropout(F.relu(self.third(x)), 0.1, self.training)))


class Blocks(ResNet):
    """Two basic blocks, whose places experts can take."""

    def __init__(self) -> None:
        blocks = {"a": BasicBlock(3, 8, 1, 1, 1), "b": BasicBlock(8, 8, 1, 1, 1)}
        super().__init__(OrderedDict[str, nn.Module](blocks), 8, 1)


def parts(made: Recipe, data: MadeUp | None = None) -> Parts:
    def method(tasks: tuple[Task, ...]) -> nn.Module:
        assert made.method is not None
        heads = {task.name: Head(task) for task in tasks}
        options = made.method.options
        return build_method(made.method.name, backbone(), tasks, heads, torch.zeros(2, 3, 8, 8), **options)

    backbone = Blocks if made.method is not None and made.method.name == MOE else Backbone
    return Parts(data or MadeUp(), backbone, Head, method)


def quiet() -> Journal:
    return Journal(Console(file=io.StringIO()), tensorboard=False)


TWO: dict[str, Any] = {"depth": {}, "colour": {}}


def of_method(name: str, **train: Any) -> Recipe:
    return recipe(epochs=2, single_epochs=1, method={"name": name}, train=train, tasks=TWO)


@pytest.mark.parametrize("name", METHODS)
def test_it_is_trained_resumed_and_collapsed(name: str, tmp_path: Path) -> None:
    made = of_method(name)
    trained = train_recipe(made, parts(made), tmp_path / "whole", journal=quiet())
    assert trained.network.form == name
    assert (tmp_path / "whole" / "checkpoint.pt").read_bytes() == (
        tmp_path / "whole" / name / "checkpoint.pt"
    ).read_bytes()
    branched = name in ("cross_stitch", "nddr", "afa")  # which start from single-task networks of one epoch
    assert (tmp_path / "whole" / "start").is_dir() == branched
    assert read_snapshot(tmp_path / "whole" / name / "checkpoint.pt").epochs == (2 if branched else 3)
    program = read_checkpoint(trained.checkpoint).program
    assert set(program.outputs) == set(TWO)
    if name != MOE:
        assert set(collapse(program).program.outputs) == set(TWO)

    before = 6 if branched else 0  # batches of the single-task networks
    faulty = MadeUp(train=Faulty(good=before + 4, how="interrupt"))
    with pytest.raises(KeyboardInterrupt):
        train_recipe(made, parts(made, faulty), tmp_path / "broken", journal=quiet())
    train_recipe(made, parts(made), tmp_path / "broken", journal=quiet(), resume=True)
    assert same(weights(tmp_path / "broken" / "checkpoint.pt"), weights(tmp_path / "whole" / "checkpoint.pt"))


def test_its_rivals_are_trained_beside_it(tmp_path: Path) -> None:
    made = recipe(epochs=1, method={"name": "nddr"}, train={"rivals": True}, tasks=TWO)
    trained = train_recipe(made, parts(made), tmp_path, journal=quiet())
    assert set(trained.single) == set(TWO)
    assert trained.shared is not None
    assert trained.shared.form == "shared"
    assert trained.compare(trained.network) is not None


@pytest.mark.parametrize("balance", BALANCES, ids=lambda balance: "-".join(map(str, balance.values())))
def test_balanced_trainings_are_resumed_with_the_same_bits(balance: dict[str, Any], tmp_path: Path) -> None:
    made = recipe(epochs=4, method={"name": "mtl"}, train={"balance": balance})
    train_recipe(made, parts(made), tmp_path / "whole", journal=quiet())
    with pytest.raises(KeyboardInterrupt):
        train_recipe(made, parts(made, MadeUp(train=Faulty(7, "interrupt"))), tmp_path / "broken", journal=quiet())
    train_recipe(made, parts(made), tmp_path / "broken", journal=quiet(), resume=True)
    whole, broken = (read_snapshot(tmp_path / folder / "checkpoint.pt") for folder in ("whole", "broken"))
    assert same(broken.network, whole.network)
    assert same(broken.optimisers, whole.optimisers)
    plain = replace(made, train=replace(made.train, balance=recipe().train.balance))
    train_recipe(plain, parts(plain), tmp_path / "plain", journal=quiet())
    assert not same(weights(tmp_path / "plain" / "checkpoint.pt"), whole.network)  # it does something


class Again(Noise):
    """Eight pictures, twenty times: an epoch costs more than the steps in it."""

    def __len__(self) -> int:
        return 20 * self.count

    def batch(self, indices: Sequence[int], /) -> Batch:
        return super().batch([index % self.count for index in indices])


class Few(MadeUp):
    """Eight pictures, learnt by heart."""

    def __init__(self) -> None:
        super().__init__(train=Again(8, 1), val=Noise(8, 1))


def reached(made: Recipe, out: Path) -> dict[str, float]:
    trained = train_recipe(made, parts(made, Few()), out, journal=quiet())
    return {task.name: trained.network.metrics[task.name][headline(task).name] for task in trained.network.tasks}


@pytest.mark.parametrize("name", METHODS)
def test_it_learns_a_few_pictures_by_heart(name: str, tmp_path: Path) -> None:
    train = {"learning_rate": 0.01, "weight_decay": 0.0}
    found = reached(recipe(epochs=6, method={"name": name}, train=train, tasks=TWO), tmp_path)
    assert found["colour"] == 1
    assert found["depth"] < 0.12  # of depths that vary by 0.58


@pytest.mark.parametrize("kind", ["soft", "drawn"])
def test_gates_learn_from_pictures_that_are_held_out(kind: str, tmp_path: Path) -> None:
    gates = {"sites": "encoder", "kind": kind}
    made = recipe(epochs=2, gates=gates, train={"hold_out": 0.34})
    data = MadeUp()
    train_recipe(made, parts(made, data), tmp_path / "two", journal=quiet())
    # 24 pictures, 8 of them held out: two steps an epoch of weights, and of gates.
    asked = [frozenset(batch) for batch in data.train.asked]
    assert len(asked) == 8
    held = [batch for batch in asked if asked.count(batch) == 4]
    assert len(held) == 4  # all eight, each time
    others = [batch for batch in asked if batch not in held]
    assert all(batch.isdisjoint(held[0]) for batch in others)

    broken = MadeUp(train=Faulty(6, "interrupt"))
    with pytest.raises(KeyboardInterrupt):
        train_recipe(made, parts(made, broken), tmp_path / "broken", journal=quiet())
    train_recipe(made, parts(made), tmp_path / "broken", journal=quiet(), resume=True)
    assert same(weights(tmp_path / "broken" / "checkpoint.pt"), weights(tmp_path / "two" / "checkpoint.pt"))


def test_weights_do_not_learn_from_pictures_that_are_held_out(tmp_path: Path) -> None:
    """Where the weights' rate is next to nothing, gates alone move; and the other way round once they stand still."""
    gates = {"sites": "encoder", "kind": "soft", "freeze_at": 1.0}
    made = recipe(epochs=1, gates=gates, train={"hold_out": 0.34, "learning_rate": 1e-30, "weight_decay": 0.0})
    train_recipe(made, parts(made), tmp_path / "a", journal=quiet())
    moved = weights(tmp_path / "a" / "checkpoint.pt")
    still = replace(made, gates=replace(made.gates, freeze_at=0.0))
    train_recipe(still, parts(still), tmp_path / "b", journal=quiet())
    unmoved = weights(tmp_path / "b" / "checkpoint.pt")
    for name, value in unmoved.items():
        if name.startswith("gates"):
            assert float(value) == 0.5
            assert float(moved[name]) != 0.5
        elif "running" not in name and "tracked" not in name:
            torch.testing.assert_close(moved[name], value, rtol=0, atol=1e-20)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"train": {"hold_out": 0.01}}, "train.hold_out: 0.01 of 24 pictures leaves one side without any"),
        ({"train": {"hold_out": 0.8}}, "train.hold_out: 0.8 leaves 5 of 24 pictures to learn from, fewer than a batch"),
        ({"train": {"hold_out": 0.2}}, "train.hold_out: 5 pictures are held out, fewer than a batch of 8"),
        (
            {"method": {"name": "nddr"}, "train": {"hold_out": 0.5}},
            "train.hold_out: nothing learns from the pictures that it holds out; gates do, and auto_lambda",
        ),
        (
            {"method": {"name": "nddr"}, "train": {"balance": {"name": "mgda", "upper_bound": True}}},
            "upper_bound: false",
        ),
    ],
)
def test_what_has_no_meaning_is_refused_before_anything_is_trained(
    changed: dict[str, Any], message: str, tmp_path: Path
) -> None:
    made = recipe(single_epochs=1, **changed)
    with pytest.raises(InputError, match=message):
        train_recipe(made, parts(made), tmp_path, journal=quiet())
    assert list(tmp_path.rglob("*.pt")) == []


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"gates": {"sites": "encoder", "kind": "soft"}}, r"public α 0\.\d\d / 0\.\d\d"),
        ({"method": {"name": "adashare"}}, r"blocks run [01]\.\d\d / [01]\.\d\d"),
        ({}, r"specific 1\.00 / 1\.00"),
    ],
)
def test_what_was_decided_is_told_after_each_epoch(changed: dict[str, Any], told: str, tmp_path: Path) -> None:
    made, said = recipe(epochs=1, tasks=TWO, **changed), io.StringIO()
    train_recipe(made, parts(made), tmp_path, journal=Journal(Console(file=said), tensorboard=False))
    assert re.search(rf"epoch 1 of 1: .*, {told}$", said.getvalue(), re.M)
