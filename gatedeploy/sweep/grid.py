"""What a sweep varies: keys of the recipe, the values of each, and seeds."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from gatedeploy.errors import InputError, closest
from gatedeploy.training.recipe_file import parse_yaml

Value = str | int | float | bool | None
Point = Mapping[str, Value]
"""A value for each key that is varied."""

TARGET = "sparsity_target"
SEED = "train.seed"


def read_over(asked: Sequence[str], tasks: Collection[str]) -> dict[str, tuple[Value, ...]]:
    """Read `--over` options.

    Args:
        asked: `dotted.key=value,value`, the values in YAML. `tasks.*.key` stands for that key of every task, each on
            its own.
        tasks: those that the recipe trains.

    Raises:
        InputError: no values, a value that is a list or mapping, a key or value that stands twice or cannot be varied.
    """
    over: dict[str, tuple[Value, ...]] = {}
    for option in asked:
        key, equals, text = option.partition("=")
        key = key.strip()
        if not equals or not all(key.split(".")):
            raise InputError(f"--over {option!r}: expected key=value,value such as sparsity.weight=0.1,0.5")
        values = _values(key, text)
        for each in _keys(key, tasks):
            if each in over:
                raise InputError(f"--over {each}: stands twice; name all its values at once, {each}=value,value")
            over[each] = values
    if not over:
        raise InputError("a sweep needs at least one --over key=value,value such as sparsity.weight=0.1,0.5")
    return over


def _values(key: str, text: str) -> tuple[Value, ...]:
    values = parse_yaml(f"[{text}]", f"--over {key}")
    if not values:
        raise InputError(f"--over {key}: no values; expected {key}=value,value")
    seen: list[Any] = []
    for value in values:
        if not isinstance(value, (str, int, float, type(None))):
            raise InputError(f"--over {key}: expected numbers, words, true, false or null, got {value!r}")
        if any(value == each and isinstance(value, bool) == isinstance(each, bool) for each in seen):
            raise InputError(f"--over {key}: {value!r} stands twice; name each value once")
        seen.append(value)
    return tuple(seen)


def _keys(key: str, tasks: Collection[str]) -> list[str]:
    """The keys that `key` stands for."""
    first, *rest = key.split(".")
    if key == SEED:
        raise InputError(f"--over {key}: every point is trained with the same seeds; --seeds says how many")
    if first == "data":
        raise InputError(
            f"--over {key}: networks are compared on the same pictures; make one sweep for each value, with --set"
        )
    if first != "tasks" or not rest:
        return [key]
    if rest[0] == "*":
        return [".".join((first, task, *rest[1:])) for task in tasks]
    if rest[0] not in tasks:
        known = list(tasks)
        raise InputError(f"--over {key}: no such task; the recipe trains {', '.join(known)}{closest(rest[0], known)}")
    return [key]


def points(over: Mapping[str, Sequence[Value]]) -> list[dict[str, Value]]:
    """Every combination of the values, the last key changing fastest."""
    return [dict(zip(over, values, strict=True)) for values in itertools.product(*over.values())]


def in_words(point: Point) -> str:
    """A point for people: `sparsity.weight=0.1, gates.group=4`."""
    return ", ".join(f"{key}={shown(value)}" for key, value in point.items())


def shown(value: Value) -> str:
    """A value as YAML writes it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)
