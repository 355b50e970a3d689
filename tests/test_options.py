"""What a recipe gives is checked against a function's signature."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from gatedeploy.errors import InputError
from gatedeploy.options import at_least, call_with_options


def brew(root: str | Path, cups: int = 1, strength: float = 0.5, beans: Mapping[str, int] | None = None) -> str:
    return f"{root} {cups} {strength} {beans}"


def pour(sides: int | Sequence[int]) -> str:
    return str(sides)


def test_options_reach_the_function() -> None:
    assert call_with_options(brew, {"root": "here", "strength": 1, "beans": {"a": 1}}, "coffee") == "here 1 1 {'a': 1}"
    assert call_with_options(pour, {"sides": [2, 3]}, "cup") == "[2, 3]"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"root": ".", "cup": 2},
            "coffee: no such option 'cup'; there are root, cups, strength, beans; did you mean 'cups'?",
        ),
        ({"root": ".", 7: 2}, "coffee: no such option 7; there are root, cups, strength, beans"),
        ({}, "coffee: the option root is missing; expected text or a path"),
        ({"root": ".", "cups": "two"}, "coffee: cups must be a whole number, got 'two'"),
        ({"root": ".", "cups": 2.0}, "coffee: cups must be a whole number, got 2.0"),
        ({"root": ".", "cups": True}, "coffee: cups must be a whole number, got True"),
        ({"root": ".", "cups": None}, "coffee: cups must be a whole number, got None"),
        ({"root": ".", "strength": "strong"}, "coffee: strength must be a number, got 'strong'"),
        ({"root": 3}, "coffee: root must be text or a path, got 3"),
        ({"root": ".", "beans": [1]}, "coffee: beans must be a mapping, got [1]"),
    ],
)
def test_wrong_options_are_told(options: dict[Any, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=re.escape(sentence)):
        call_with_options(brew, options, "coffee")


def test_text_is_no_list() -> None:
    with pytest.raises(InputError, match="sides must be a whole number or a list, got '64'"):
        call_with_options(pour, {"sides": "64"}, "cup")


def test_errors_of_the_function_name_the_place() -> None:
    def picky(count: int) -> None:
        at_least(1, count=count)

    with pytest.raises(InputError, match=r"^data: count must be at least 1, got 0$"):
        call_with_options(picky, {"count": 0}, "data")
