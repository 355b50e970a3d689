from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatedeploy.errors import InputError
from gatedeploy.specs import InputSpec, Task, check_tasks, input_from_plain, task_from_plain, to_plain


def test_a_number_that_no_float_holds_is_none() -> None:
    with pytest.raises(InputError, match="weight must be a positive number"):
        Task("a", weight=10**400)


@pytest.mark.parametrize("name", ["", "a b", "1a", "a-b", "class", "None", "_hidden", "a.b", "a\n", "ﬁlm", 5, None])
def test_a_task_is_called_by_an_identifier(name: Any) -> None:
    with pytest.raises(InputError, match=re.escape(f"task name {name!r}: expected an identifier such as 'depth'")):
        Task(name)


def test_the_shared_branch_has_its_name() -> None:
    with pytest.raises(InputError, match="task name 'shared' is taken by the shared branch; choose another"):
        Task("shared")


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"kind": "segmentaton"}, "task a: no such kind 'segmentaton'; there are .*did you mean 'segmentation'"),
        ({"kind": "classification"}, "needs the names of at least 2 classes, got ()"),
        ({"kind": "segmentation", "classes": ("one",)}, "needs the names of at least 2 classes"),
        ({"kind": "segmentation", "classes": 5}, "classes must be a tuple of names, got 5"),
        ({"kind": "segmentation", "classes": (1, 2)}, r"classes must be a tuple of names, got \(1, 2\)"),
        ({"kind": "segmentation", "classes": ("sky", "sea", "sky")}, "two classes are called 'sky'; names must differ"),
        *(
            ({"weight": weight}, "weight must be a positive number, got")
            for weight in (0.0, -1.0, float("nan"), float("inf"), "heavy", True)
        ),
        *(({"sparsity_target": target}, r"must be in \[0, 1\]") for target in (-0.1, 1.1, float("nan"), "0")),
    ],
    ids=str,
)
def test_a_task_that_makes_no_sense_is_refused(field: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Task("a", **field)


def test_how_wide_a_prediction_is() -> None:
    widths = {
        Task("a", "classification", ("x", "y", "z")): 3,
        Task("a", "segmentation", ("x", "y")): 2,
        Task("a", "depth"): 1,
        Task("a", "normals"): 3,
    }
    for task, channels in widths.items():
        assert task.channels == channels
        assert task.dense == (task.kind != "classification")
    with pytest.raises(InputError, match="task a has no kind, so the width of its prediction is unknown"):
        assert Task("a").channels


def test_tasks_are_some_and_differ() -> None:
    tasks = (Task("a"), Task("b"))
    assert check_tasks(tasks) is tasks
    with pytest.raises(InputError, match="no tasks were given"):
        check_tasks(())
    with pytest.raises(InputError, match="two tasks are called 'a'; names must differ"):
        check_tasks((*tasks, Task("a")))


def test_a_picture_has_a_size() -> None:
    assert InputSpec(3, 4, 5).shape == (3, 4, 5)
    wrong: list[Any] = [(0, 1, 1), (1, -1, 1), (1, 1, 0), (2.5, 1, 1), (True, 1, 1), ("3", 1, 1), (3, None, 1)]
    for sizes in wrong:
        with pytest.raises(InputError, match="channels, height and width must be whole numbers, at least 1"):
            InputSpec(*sizes)


@pytest.mark.parametrize("name", ["class", "a b", "", "1", "a;b", 5])
def test_a_picture_is_called_by_an_identifier(name: Any) -> None:
    with pytest.raises(InputError, match="which is no identifier such as 'image'"):
        InputSpec(3, 8, 8, name=name)


@pytest.mark.parametrize("field", ["mean", "std"])
def test_a_picture_is_made_channel_by_channel(field: str) -> None:
    numbers: Any = {field: (0.5, 0.5)}
    with pytest.raises(InputError, match=f"input {field} has 2 values for 3 channels"):
        InputSpec(3, 8, 8, **numbers)
    for wrong in (5, ("a", "b", "c"), (float("nan"), 1.0, 1.0)):
        numbers = {field: wrong}
        with pytest.raises(InputError, match=f"input {field} must be a tuple of numbers, one per channel"):
            InputSpec(3, 8, 8, **numbers)


@pytest.mark.parametrize("std", [0.0, -1.0])
def test_pixels_are_divided_by_what_is_positive(std: float) -> None:
    with pytest.raises(InputError, match="input std must be positive, since pixels are divided by it"):
        InputSpec(3, 8, 8, std=(1.0, std, 1.0))


@given(
    weight=st.floats(1e-6, 1e6),
    target=st.floats(0, 1),
    classes=st.lists(st.text(max_size=8), min_size=2, max_size=4, unique=True),
)
def test_tasks_survive_json(weight: float, target: float, classes: list[str]) -> None:
    task = Task("a", "segmentation", tuple(classes), weight, target)
    assert task_from_plain(json.loads(json.dumps(to_plain(task)))) == task


def test_pictures_survive_json() -> None:
    for spec in (InputSpec(3, 8, 9), InputSpec(1, 2, 3, (0.1,), (0.2,), "photo")):
        assert input_from_plain(json.loads(json.dumps(to_plain(spec)))) == spec


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ({"name": "a", "wieght": 1}, "'wieght' is no field of Task; known are .*did you mean 'weight'"),
        ({}, "not a Task: .* missing 1 required positional argument: 'name'"),
        ({"name": "a b"}, "expected an identifier"),
        (["name"], r"not a Task: expected its fields by name, got \['name'\]"),
    ],
    ids=["unknown field", "missing field", "wrong name", "list"],
)
def test_tasks_of_a_stranger_are_checked(plain: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        task_from_plain(plain)


def test_pictures_of_a_stranger_are_checked() -> None:
    with pytest.raises(InputError, match=r"not a InputSpec: .* missing 2 required positional arguments"):
        input_from_plain({"channels": 3})
    with pytest.raises(InputError, match="must be whole numbers"):
        input_from_plain({"channels": 2.5, "height": 8, "width": 8})
