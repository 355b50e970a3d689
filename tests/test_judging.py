"""A recipe's pictures calibrate and judge networks of reduced precision; the command as a user types it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

import gatedeploy as gd
from gatedeploy.cli.app import run
from gatedeploy.errors import InputError
from gatedeploy.exporters.precision.samples import Headline
from gatedeploy.judging import CALIBRATION, recipe_of, samples_of
from gatedeploy.specs import InputSpec, Task
from gatedeploy.training.recipe import Recipe
from gatedeploy.training.recipe_file import load_recipe
from tests.benchmarks.test_precision import OPTIONS, file  # noqa: F401  a fixture
from tests.cli.test_bad_input import refused

PLAIN = load_recipe("demo", [f"data.{key}={value}" for key, value in OPTIONS.items()]).plain()


def recipe(**data: int) -> Recipe:
    return Recipe.from_plain({**PLAIN, "data": {**PLAIN["data"], **data}})


def data() -> tuple[tuple[Task, ...], InputSpec]:
    from gatedeploy.data import load_data

    found = load_data("scenes", **OPTIONS)
    return found.tasks, found.input


def test_pictures_to_calibrate_by_are_none_of_those_that_judge() -> None:
    tasks, spec = data()
    samples = samples_of(recipe(train=200), "mine", tasks, spec)
    assert sum(map(len, samples.calibration)) == CALIBRATION
    assert samples.pictures == 4
    assert samples.source == "scenes (mine)"
    assert samples.headlines["depth"] == Headline("rmse", lower_is_better=True)
    assert samples.headlines["segmentation"] == Headline("mean_iou", lower_is_better=False)
    seen: list[np.ndarray] = []

    def predict(pictures: np.ndarray) -> dict[str, np.ndarray]:
        seen.extend(pictures)
        sizes = {task.name: task.channels for task in tasks}
        return {name: np.ones((len(pictures), size, 32, 32), np.float32) for name, size in sizes.items()}

    figures = samples.measure(predict)
    assert set(figures) == {"segmentation", "depth", "normals"}
    assert figures["depth"]["rmse"] > 0
    assert len(seen) == 4
    calibrated = {picture.tobytes() for batch in samples.calibration for picture in batch}
    assert not calibrated & {picture.tobytes() for picture in seen}
    assert len(calibrated) == CALIBRATION
    again = samples_of(recipe(train=200), "mine", tasks, spec)
    assert all((one == other).all() for one, other in zip(samples.calibration, again.calibration, strict=True))


def test_a_data_set_of_another_network() -> None:
    tasks, spec = data()
    for wrong, message in (
        ((Task("heat", "depth"),), "mine: the data set scenes has no labels for task heat; it has segmentation, depth"),
        ((Task("depth", "normals"),), "mine: the data set's task depth is of another kind or has other classes"),
    ):
        with pytest.raises(InputError, match=message):
            samples_of(recipe(), "mine", wrong, spec)
    with pytest.raises(InputError, match=r"mine: the data set scenes makes .*; the network takes "):
        samples_of(recipe(), "mine", tasks, InputSpec(3, 16, 32))


def test_whose_pictures() -> None:
    assert recipe_of(PLAIN, None, "net")[1] == "net"
    assert recipe_of({}, "demo", "net")[1] == "demo"
    with pytest.raises(InputError, match=r"net: names no recipe, .*name a recipe whose data to take: --data"):
        recipe_of({}, None, "net")
    with pytest.raises(InputError, match="net: "):
        recipe_of({"data": 3}, None, "net")


@pytest.mark.slow
def test_the_command(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    words = ["export", str(file), "--onnx", "--precision", "int8", "--calibration", "min-max", "--out"]
    assert run([*words, str(tmp_path / "a"), "--max-drop", "1000", "--layers", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["precision"] == "int8"
    assert said["reduction"]["data"] == f"scenes ({file})"
    assert set(said["reduction"]["lost"]) == {"segmentation", "depth", "normals"}
    assert max(said["reduction"]["layer_errors"].values()) > 0
    assert run([*words, str(tmp_path / "a"), "--max-drop", "1000"]) == 0
    told = capsys.readouterr()
    assert "Judged by 4 pictures of scenes" in told.err
    assert "mean_angle" in told.out
    assert "Checked in float32 in onnxruntime" in told.out
    assert re.search(r"In int8: (\d+) of \1 layers\.", told.out)
    assert run(["verify", str(tmp_path / "a")]) == 0
    assert run(["verify", str(tmp_path / "a"), "--runtime", "openvino"]) == 0
    capsys.readouterr()
    sentence = refused(capsys, *words, str(tmp_path / "b"), "--max-drop", "0", code=1)
    assert "Refused, for a task may lose 0 %" in sentence
    assert not (tmp_path / "b").exists()


def test_wrong_words(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    words = ["export", str(file), "--onnx", "--out", str(tmp_path / "out"), "--precision"]
    assert "expected min-max or entropy" in refused(capsys, *words, "int8", "--calibration", "mean")
    assert "a drop of at most -1.0 %: expected 0 or more" in refused(capsys, *words, "fp16", "--max-drop", "-1")
    assert "there is no precision 'int4'" in refused(capsys, *words, "int4")
    assert "tf32 is how GPUs multiply in an engine of TensorRT" in refused(capsys, *words, "tf32")
    assert "no such recipe" in refused(capsys, *words, "fp16", "--data", "nothing").lower()
    assert not any(tmp_path.iterdir())


def test_from_python_with_pictures_of_ones_own() -> None:
    samples = gd.Samples(
        [np.zeros((1, 3, 8, 9), np.float32)], lambda predict: {}, {"a": gd.Headline("b", True)}, "mine", 1
    )
    with pytest.raises(InputError, match=r"mine: .* expected float32 \(batch, 3, 8, 8\)"):
        samples.check(InputSpec(3, 8, 8))
    nothing = gd.Samples([np.zeros((1, 3, 8, 8), np.float32)], lambda predict: {}, {}, "mine", 1)
    with pytest.raises(InputError, match="mine: names no metric to judge a task by; expected a headline for each task"):
        nothing.check(InputSpec(3, 8, 8))
