from __future__ import annotations

import re
from pathlib import Path

import pytest

from gatedeploy.errors import InputError
from gatedeploy.training.recipe_file import bundled_recipes, load_recipe, parse_yaml

TEXT = """\
data:
  name: folder
  root: /data
model:
  backbone: {name: resnet20, width: 0.25}
train:
  epochs: 4
  learning_rate: 1e-3
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(TEXT)
    return path


def refused(path: Path, text: str, *overrides: str) -> str:
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load_recipe(path, overrides)
    return str(caught.value)


def test_a_file_is_read(file: Path) -> None:
    recipe = load_recipe(file)
    assert recipe.train.learning_rate == 0.001
    assert recipe.model.backbone.options == {"width": 0.25}
    assert recipe.data.options == {"root": "/data"}


def test_overrides_are_yaml_and_the_last_wins(file: Path) -> None:
    recipe = load_recipe(
        file,
        [
            "train.epochs=7",
            "train.epochs=8",
            "train.schedule={name: step, every: 3}",
            "data.root=/else where",
            "data.train=100",
            "tasks.depth.weight=2e-1",
            "gates.tie=residual",
            "model.weights=null",
        ],
    )
    assert recipe.train.epochs == 8
    assert recipe.train.schedule.plain() == {"name": "step", "every": 3, "factor": 1 / 3}
    assert recipe.data.options == {"root": "/else where", "train": 100}
    assert recipe.tasks["depth"].weight == 0.2
    assert recipe.gates.tie == "residual"


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("train.epoch=3", "train.epoch: no such key; there are epochs,"),
        ("train.epoch=3", "did you mean 'epochs'?"),
        ("train.epochs=many", "train.epochs: must be a whole number of at least 1, got 'many'"),
        ("train.epochs", "--set 'train.epochs': expected key=value such as train.epochs=4"),
        ("=3", "--set '=3': expected key=value"),
        ("train..epochs=3", "expected key=value"),
        ("train.epochs.more=3", "--set 'train.epochs.more=3': train.epochs is 4 and has no keys"),
        ("train=[1", "--set train:1: not YAML as recipes use it"),
    ],
)
def test_a_wrong_override_is_explained(file: Path, override: str, sentence: str) -> None:
    assert sentence in refused(file, TEXT, override)


@pytest.mark.parametrize(
    ("text", "line", "sentence"),
    [
        (TEXT + "train:\n  epochs: 5\n", 9, "the key 'train' stands twice"),
        (TEXT + "  epochs: 5\n", 9, "the key 'epochs' stands twice"),
        (TEXT + "gates: {group: 2\n", 10, "expected ',' or '}'"),
        (TEXT + "gates: &a {group: 2}\n", 9, "anchors and aliases are not supported"),
        (TEXT + "gates: *a\n", 9, "anchors and aliases are not supported"),
        (TEXT + "gates: !!python/name:os.system\n", 9, "could not determine a constructor for the tag"),
        (TEXT + "---\nanother: document\n", 9, "expected a single document"),
        (TEXT + "? [a, b]\n: 3\n", 9, "unhashable key"),
        (TEXT + "\ttabs: 3\n", 9, "found character '\\t'"),
    ],
)
def test_what_is_no_recipe_yaml_is_told_with_its_line(file: Path, text: str, line: int, sentence: str) -> None:
    message = refused(file, text)
    assert message.startswith(f"{file}:{line}: not YAML as recipes use it: ")
    assert sentence in message


def test_what_is_yaml_and_no_recipe_is_explained(file: Path) -> None:
    keys = "data, model, train, tasks, method, gates, sparsity, budget"
    assert refused(file, "") == f"{file}: expected the keys {keys}, got None"
    assert "got ['a']" in refused(file, "- a\n")
    assert "[" * 9 not in refused(file, "a: " + "[" * 5000)
    assert (
        refused(file, "a: \x00")
        == f"{file}: not YAML: unacceptable character #x0000: special characters are not allowed"
    )


def test_the_sentence_begins_with_file_and_key(file: Path) -> None:
    assert refused(file, TEXT + "tasks: {depth: {weigth: 3}}\n") == (
        f"{file}: tasks.depth.weigth: no such key; there are weight, sparsity_target, head; did you mean 'weight'?"
    )


def test_bytes_that_are_no_text(file: Path) -> None:
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=rf"^{re.escape(str(file))}: cannot be read as UTF-8 text: "):
        load_recipe(file)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("-1.5E2", -150.0),
        ("12", 12),
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("2024-01-01", "2024-01-01"),
        ("a.b", "a.b"),
        ("'1'", "1"),
        ("-", "-"),
        ("1e-3x", "1e-3x"),
    ],
)
def test_scalars_are_what_they_look_like(text: str, value: object) -> None:
    assert parse_yaml(f"- {text}" if text != "-" else "- '-'", "here") == [value]


def test_unknown_recipes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^dmeo: no such recipe; there are .*demo.*; did you mean 'demo'\?"):
        load_recipe("dmeo")
    with pytest.raises(InputError, match=r"missing\.yaml: no such recipe file$"):
        load_recipe(tmp_path / "missing.yaml")


@pytest.mark.parametrize("name", bundled_recipes())
def test_bundled_recipes_load_by_name(name: str) -> None:
    assert load_recipe(name).train.epochs >= 1


def test_a_file_called_like_a_bundled_recipe_needs_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("demo").write_text(TEXT)
    assert load_recipe("demo").data.name == "scenes"
    assert load_recipe("./demo").data.name == "folder"


def test_a_message_about_a_bundled_recipe_says_so() -> None:
    with pytest.raises(InputError, match=r"^recipe demo: train\.epochs: must be"):
        load_recipe("demo", ["train.epochs=0"])
