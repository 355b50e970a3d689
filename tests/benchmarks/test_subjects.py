from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import gatedeploy as gd
from gatedeploy.artifact import ModelInfo, write_checkpoint
from gatedeploy.benchmarks import candidates
from gatedeploy.benchmarks.accuracy import SINGLE, accuracies
from gatedeploy.benchmarks.candidates import assemble
from gatedeploy.benchmarks.subjects import labels, read_subjects
from gatedeploy.errors import InputError
from gatedeploy.exporters.manifest import MANIFEST
from gatedeploy.exporters.manifest_json import manifest_to_json
from gatedeploy.graph.capture import capture
from gatedeploy.specs import Task
from tests.backbones import PerTask
from tests.benchmarks.tiny import EXAMPLE, SPEC, Backbone, gated, head, save_gated, some_reduction, tasks


def save_plain(path: Path, form: str, asked: tuple[Task, ...], metrics: dict[str, dict[str, float]]) -> None:
    net = PerTask({task.name: torch.nn.Sequential(Backbone(), head()) for task in asked}).eval()
    write_checkpoint(path, capture(net, EXAMPLE), ModelInfo(asked, SPEC, form, metrics=metrics))


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `gatedeploy train` leaves it."""
    folder = tmp_path_factory.mktemp("runs") / "night"
    save_gated(folder / "checkpoint.pt", {"task0": {"accuracy": 0.9}, "task1": {"accuracy": 0.5}})
    for task in tasks():
        save_plain(folder / "single" / task.name / "checkpoint.pt", "single", (task,), {task.name: {"accuracy": 0.8}})
    save_plain(folder / "shared" / "checkpoint.pt", "shared", tasks(), {})
    return folder


def test_a_bundle_of_reduced_precision_reached_what_it_reaches_now(tmp_path: Path) -> None:
    metrics = {task.name: {"accuracy": 0.9} for task in tasks()}
    thin = gd.collapse(gated(), example_input=EXAMPLE, target=None)
    bundle = gd.export(thin, tmp_path / "bundle", info=ModelInfo(tasks(), SPEC, metrics=metrics))
    assert accuracies(read_subjects([bundle.path]))[0].metrics == metrics
    reduced = {task.name: {"accuracy": 0.4} for task in tasks()}
    reduction = replace(some_reduction(), float32=metrics, reduced=reduced)
    (bundle.path / MANIFEST).write_text(manifest_to_json(replace(bundle.manifest, reduction=reduction)))
    assert accuracies(read_subjects([bundle.path]))[0].metrics == reduced


def test_tasks_of_one_name_and_another_kind_do_not_fit(tmp_path: Path) -> None:
    save_plain(tmp_path / "a.pt", "shared", tasks(), {})
    for task in (Task("task0", "depth"), Task("task0", "classification", ("x", "y", "z"))):
        other = (task, tasks()[1])
        save_plain(tmp_path / "b.pt", "shared", other, {})
        with pytest.raises(InputError, match=r"b\.pt: answers task0 by .*a\.pt by classification of \d+ classes"):
            read_subjects([tmp_path / "a.pt", tmp_path / "b.pt"])


def test_a_training_folder_stands_for_its_checkpoints(training: Path) -> None:
    subjects = read_subjects([training, training / "checkpoint.pt"])
    assert [subject.form for subject in subjects] == ["gated", "shared", "single", "single"]
    assert [subject.label for subject in subjects] == ["night", "shared", "task0", "task1"]


def test_one_file_under_two_paths_is_measured_once(training: Path, tmp_path: Path) -> None:
    (tmp_path / "link.pt").symlink_to(training / "checkpoint.pt")
    named = [training / "checkpoint.pt", training / "shared" / ".." / "checkpoint.pt", tmp_path / "link.pt"]
    assert len(read_subjects(named)) == 1


@pytest.mark.slow
def test_trained_rivals_are_taken_where_they_exist(training: Path) -> None:
    found, notes = assemble(read_subjects([training]))
    assert [each.name for each in found] == ["stl", "mtl", "gated", "naive", "collapsed"]
    assert notes == [
        "There is no mixture of experts to compare with: the file names no recipe, so its backbone is not known."
    ]
    picture = torch.randn(1, 3, 8, 8)
    single = read_subjects([training / "single" / "task1" / "checkpoint.pt"])[0].program
    assert single is not None
    with torch.no_grad():
        expected = gd.collapse(single)(picture)["task1"]
        torch.testing.assert_close(found[0].networks[1](picture)["task1"], expected)


@pytest.mark.slow
def test_trained_rivals_are_completed_by_made_ones(training: Path) -> None:
    trained = training / "single" / "task1" / "checkpoint.pt"
    found, _ = assemble(read_subjects([training / "checkpoint.pt", trained]))
    assert [each.name for each in found] == ["stl", "mtl", "gated", "naive", "collapsed"]
    picture = torch.randn(1, 3, 8, 8)
    program = read_subjects([trained])[0].program
    assert program is not None
    with torch.no_grad():
        expected = gd.collapse(program)(picture)["task1"]
        torch.testing.assert_close(found[0].networks[1](picture)["task1"], expected)


@pytest.mark.slow
def test_experts_are_made_of_whichever_file_names_its_recipe(training: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_experts(info: ModelInfo) -> None:
        raise InputError(f"asked for those of {info.recipe}")

    monkeypatch.setattr(candidates, "mixture_of_recipe", no_experts)
    gated, shared, *_ = read_subjects([training])
    _, notes = assemble([gated, replace(shared, info=replace(shared.info, recipe={"of": "shared"}))])
    assert notes == ["There is no mixture of experts to compare with: asked for those of {'of': 'shared'}."]


@pytest.mark.slow
def test_a_collapsed_file_and_its_checkpoint_are_one_candidate(training: Path, tmp_path: Path) -> None:
    thin = gd.collapse(gd.load(training / "checkpoint.pt"), example_input=EXAMPLE)
    gd.save(thin, tmp_path / "thin.safetensors")
    other = gated()
    other.gate(other.sites[0], "task0").choose([True] * 4)
    gd.save(gd.collapse(other, example_input=EXAMPLE), tmp_path / "other.safetensors")
    one, _ = assemble(read_subjects([training / "checkpoint.pt", tmp_path / "thin.safetensors"]), experts=False)
    assert [each.name for each in one] == ["stl", "mtl", "gated", "naive", "collapsed"]
    two, notes = assemble(read_subjects([tmp_path / "thin.safetensors", tmp_path / "other.safetensors"]))
    assert [each.name for each in two] == ["collapsed thin.safetensors", "collapsed other.safetensors"]
    assert notes[0].startswith(
        "Single-task networks and one shared encoder could not be made: thin.safetensors: the file"
    )


def test_accuracies_of_single_task_networks_are_one_row_and_what_gains_refer_to(training: Path) -> None:
    rows = accuracies(read_subjects([training]))
    assert [row.name for row in rows] == [SINGLE, "night"]
    assert rows[0].metrics == {"task0": {"accuracy": 0.8}, "task1": {"accuracy": 0.8}}
    assert rows[1].compared is not None
    assert rows[1].compared.delta_mtl == pytest.approx(100 * ((0.9 - 0.8) / 0.8 + (0.5 - 0.8) / 0.8) / 2)


def test_metrics_that_are_no_numbers_are_refused(training: Path) -> None:
    (subject,) = read_subjects([training / "checkpoint.pt"])
    broken = replace(subject, info=replace(subject.info, metrics={"task0": {"accuracy": "<b>"}}))  # type: ignore[dict-item]
    with pytest.raises(InputError, match=r"checkpoint.pt: its metrics of task 'task0' are .*; expected numbers by"):
        accuracies([broken])


def test_labels_are_as_short_as_they_can_be_and_all_different() -> None:
    paths = [Path("a/x.pt"), Path("b/x.pt"), Path("c/b/x.pt"), Path("y")]
    assert labels(paths)[3] == "y"
    assert labels(paths)[0] == "a/x.pt"
    assert len(set(labels(paths))) == 4


def test_what_does_not_fit_is_explained(training: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing to measure was given"):
        read_subjects([])
    with pytest.raises(InputError, match=r"neither a bundle \(no manifest.json\) nor a training \(no checkpoint.pt\)"):
        read_subjects([tmp_path])
    save_plain(tmp_path / "three.pt", "shared", tasks(3), {})
    with pytest.raises(InputError, match=r"three.pt: answers task0, task1, task2, .* answers task0, task1; compare"):
        read_subjects([training / "checkpoint.pt", tmp_path / "three.pt"])
    larger = torch.zeros(1, 3, 12, 8)
    net = PerTask({task.name: torch.nn.Sequential(Backbone(), head()) for task in tasks()}).eval()
    write_checkpoint(tmp_path / "large.pt", capture(net, larger), ModelInfo(tasks(), gd.InputSpec(3, 12, 8), "shared"))
    with pytest.raises(InputError, match=r"large.pt: takes a picture of \(3, 12, 8\), .* one of \(3, 8, 8\); compare"):
        read_subjects([training / "checkpoint.pt", tmp_path / "large.pt"])
    with pytest.raises(InputError, match=r"nowhere.pt: no such file"):
        read_subjects([tmp_path / "nowhere.pt"])
