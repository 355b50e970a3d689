from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
import torch
from rich.console import Console

from gatedeploy.artifact import ModelInfo, read_checkpoint
from gatedeploy.compiler import collapse
from gatedeploy.errors import InputError
from gatedeploy.gating.multi_head import MultiHead
from gatedeploy.specs import InputSpec, Task
from gatedeploy.training.journal import Journal
from gatedeploy.training.snapshots import read_snapshot
from gatedeploy.training.stages import Trained, gated_network, train_recipe
from tests.training.made_up import TASKS, Head, MadeUp, make_backbone, parts, recipe, weights
from tests.training.test_loop import Faulty


def journal() -> Journal:
    return Journal(Console(file=io.StringIO()), tensorboard=False)


def said(by: Journal) -> str:
    assert isinstance(by.console.file, io.StringIO)
    return by.console.file.getvalue()


ROAD = recipe(epochs=2, single_epochs=1, train={"rivals": True}, tasks={"depth": {"weight": 2}, "colour": {}})


def test_the_whole_road(tmp_path: Path) -> None:
    telling = journal()
    trained = train_recipe(ROAD, parts(), tmp_path, journal=telling, resume=True)
    assert f"{tmp_path}: holds no training to go on with; beginning one" in said(telling)
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*"))
    assert found == [
        "checkpoint.pt",
        "gated/checkpoint.pt",
        "shared/checkpoint.pt",
        "single/colour/checkpoint.pt",
        "single/depth/checkpoint.pt",
        "start/colour/checkpoint.pt",
        "start/depth/checkpoint.pt",
    ]
    epochs = {folder: read_snapshot(tmp_path / folder / "checkpoint.pt").epochs for folder in ("start/depth", "gated")}
    rivals = {
        folder: read_snapshot(tmp_path / folder / "checkpoint.pt").epochs for folder in ("single/depth", "shared")
    }
    assert epochs == {"start/depth": 1, "gated": 2}
    assert rivals == {"single/depth": 3, "shared": 3}  # as long as the gated network in all
    assert (tmp_path / "checkpoint.pt").read_bytes() == (tmp_path / "gated" / "checkpoint.pt").read_bytes()
    assert trained.checkpoint == tmp_path / "checkpoint.pt"
    assert [task.name for task in trained.network.tasks] == ["depth", "colour"]
    assert trained.network.tasks[0].weight == 2
    assert list(trained.single) == ["depth", "colour"]
    for info, form, tasks in (
        (trained.single["depth"], "single", {"depth"}),
        (trained.shared, "shared", {"depth", "colour"}),
        (trained.network, "gated", {"depth", "colour"}),
    ):
        assert info is not None
        assert info.form == form
        assert set(info.metrics) == tasks
    assert re.search(r"^gated: Δ_MTL over single-task nets [+-][\d.]+ %$", said(telling), re.M)
    assert set(collapse(read_checkpoint(trained.checkpoint).program).program.outputs) == {"depth", "colour"}

    resumed = journal()
    assert train_recipe(ROAD, parts(), tmp_path, resume=True, journal=resumed) == trained
    assert "beginning one" not in said(resumed)


def test_branches_and_heads_start_from_the_single_task_nets() -> None:
    single = {task.name: MultiHead(make_backbone(), {task.name: Head(task)}) for task in TASKS}
    network = gated_network(recipe(), parts(), TASKS, single)
    for task in TASKS:
        branch = network.branches.get_submodule(task.name).state_dict()
        for name, value in single[task.name].backbone.state_dict().items():
            assert torch.equal(branch[name], value)
        for name, value in single[task.name].heads[task.name].state_dict().items():
            assert torch.equal(network.heads.get_submodule(task.name).state_dict()[name], value)
    shared = network.branches.get_submodule("shared").state_dict()
    assert not any(torch.equal(shared["0.weight"], net.backbone.state_dict()["0.weight"]) for net in single.values())


@pytest.mark.parametrize("single_epochs", [0, 1])
def test_the_road_follows_from_its_seed(tmp_path: Path, single_epochs: int) -> None:
    made = {
        name: recipe(epochs=1, single_epochs=single_epochs, train={"seed": seed}, tasks={"depth": {}})
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    }
    for before, (name, one) in enumerate(made.items()):
        torch.manual_seed(before)  # what was drawn before is no matter
        train_recipe(one, parts(), tmp_path / name, journal=journal())
    a, b, c = (weights(tmp_path / name / "checkpoint.pt") for name in made)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["branches.shared.0.weight"], c["branches.shared.0.weight"])


def test_gating_follows_the_recipe() -> None:
    tasks = TASKS[2:]
    made = recipe(gates={"group": 3, "sites": ["_2"]})
    network = gated_network(made, parts(), tasks, {})
    assert [site.name for site in network.sites] == ["_2"]
    assert network.gate(network.sites[0], "depth").group == 3
    with pytest.raises(InputError, match=r"no site 'relu7' in the backbone"):
        gated_network(recipe(gates={"sites": ["relu7"]}), parts(), tasks, {})


def test_a_folder_with_a_training_is_not_overwritten(tmp_path: Path) -> None:
    made = recipe(epochs=1, tasks={"depth": {}})
    train_recipe(made, parts(), tmp_path, journal=journal())
    with pytest.raises(
        InputError, match=r"holds a training already \(.*gated/checkpoint\.pt\); go on with --resume, or"
    ):
        train_recipe(made, parts(), tmp_path, journal=journal())


@pytest.mark.parametrize(("weight", "told"), [(0.0, True), (0.1, False)])
def test_that_nothing_makes_tasks_share_is_told(tmp_path: Path, weight: float, told: bool) -> None:
    made = recipe(epochs=1, tasks={"depth": {}}, sparsity={"weight": weight})
    telling = journal()
    train_recipe(made, parts(), tmp_path, journal=telling)
    assert ("sparsity.weight is 0" in said(telling)) == told


def test_a_task_that_the_data_lacks_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"tasks\.depht: no such task\. The data set `made_up` offers: colour, parts"):
        train_recipe(recipe(tasks={"depht": {}}), parts(), tmp_path / "out", journal=journal())
    assert not (tmp_path / "out").exists()


def test_a_place_that_cannot_be_written_is_told_before_anything_is_trained(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    telling = journal()
    with pytest.raises(InputError, match=r"file/run/checkpoint\.pt: could not be written: .*; name another place"):
        train_recipe(recipe(tasks={"depth": {}}), parts(), tmp_path / "file" / "run", journal=telling)
    assert "epoch" not in said(telling)


def test_a_foreign_file_in_the_way_of_resuming_is_refused(tmp_path: Path) -> None:
    (tmp_path / "gated").mkdir()
    (tmp_path / "gated" / "checkpoint.pt").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(InputError, match=r"gated/checkpoint\.pt: a truncated zip archive: its end is missing"):
        train_recipe(recipe(tasks={"depth": {}}), parts(), tmp_path, resume=True, journal=journal())


def info(depth: float, colour: float) -> ModelInfo:
    metrics = {"depth": {"rmse": depth, "absolute_error": 9.0}, "colour": {"accuracy": colour}}
    return ModelInfo((Task("depth", "depth"), TASKS[0]), InputSpec(3, 8, 8), "gated", {}, metrics)


def test_the_gain_over_single_task_nets(tmp_path: Path) -> None:
    single = {"depth": info(2.0, 0.0), "colour": info(9.0, 0.5)}
    trained = Trained(tmp_path, single, None, info(1.0, 0.75))
    compared = trained.compare(trained.network)
    assert compared is not None
    assert compared.delta_mtl == pytest.approx(50.0)
    assert Trained(tmp_path, {}, None, info(1.0, 0.75)).compare(info(1.0, 1.0)) is None


@pytest.mark.parametrize("kind", ["soft", "drawn"])
@pytest.mark.parametrize("sites", ["encoder", "decoder"])
def test_gates_behind_whole_branches_are_trained_resumed_and_collapsed(sites: str, kind: str, tmp_path: Path) -> None:
    tasks: dict[str, object] = {"depth": {}, "colour": {}}
    safe = recipe(epochs=3, single_epochs=1, tasks=tasks, gates={"sites": sites, "kind": kind, "learning_rate": 9.0})
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train_recipe(safe, parts(), whole, journal=journal())
    network = gated_network(safe, parts(), safe.chosen_tasks(TASKS), {})
    network.load_state_dict(weights(whole / "checkpoint.pt"))
    gates = network.whole_gates()
    assert list(gates) == ["depth", "colour"]
    assert all(0 <= gate.public <= 1 for gate in gates.values()), "whatever a large learning rate does"
    assert any(gate.public != 0.5 for gate in gates.values())
    thin = collapse(read_checkpoint(whole / "checkpoint.pt").program, example_input=torch.randn(2, 3, 8, 8))
    assert thin.report is not None

    in_the_second_epoch = 3 + 3 + 4  # of three steps each, behind those of two networks that it starts from
    with pytest.raises(KeyboardInterrupt):
        train_recipe(safe, parts(MadeUp(Faulty(in_the_second_epoch, "interrupt"))), broken, journal=journal())
    train_recipe(safe, parts(), broken, journal=journal(), resume=True)
    resumed = weights(broken / "checkpoint.pt")
    assert all(torch.equal(value, resumed[name]) for name, value in weights(whole / "checkpoint.pt").items())


def test_a_penalty_on_channels_that_have_no_gates_is_refused(tmp_path: Path) -> None:
    wrong = recipe(gates={"sites": "encoder", "kind": "soft"}, sparsity={"weight": 0.1}, tasks={"depth": {}})
    with pytest.raises(InputError, match=r"sparsity.weight closes channels .*, and gates.kind soft has none; leave it"):
        train_recipe(wrong, parts(), tmp_path, journal=journal())


def test_data_is_what_answers_like_data() -> None:
    assert parts(MadeUp()).data.input == InputSpec(3, 8, 8)
