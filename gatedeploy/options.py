"""Call a function with what a recipe says, and answer a wrong option with a sentence instead of a TypeError."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from gatedeploy.errors import InputError, closest, located

Result = TypeVar("Result")

_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    Path: "a path",
    Mapping: "a mapping",
    Sequence: "a list",
    types.NoneType: "nothing",
}


def call_with_options(function: Callable[..., Result], options: Mapping[Any, Any], where: str) -> Result:
    """`function(**options)`, with the options checked against its signature and annotations first.

    Args:
        function: its parameters are the options; those without a default must be given.
        options: as read from YAML, so of any type.
        where: what the options belong to; stands before every message, those of `function` too.

    Raises:
        InputError: an unknown option, a missing one, or one of the wrong type.
    """
    check_options(function, options, where)
    with located(where):
        return function(**options)


def check_options(function: Callable[..., Any], options: Mapping[Any, Any], where: str) -> None:
    """Raise `InputError` where `function(**options)` would not fit its signature and annotations."""
    parameters = inspect.signature(function).parameters
    hints = get_type_hints(function)
    with located(where):
        for name, value in options.items():
            if name not in parameters:
                known = list(parameters)
                raise InputError(f"no such option {name!r}; there are {', '.join(known)}{closest(str(name), known)}")
            if not _fits(value, hints[name]):
                raise InputError(f"{name} must be {in_words(hints[name])}, got {value!r}")
        for name, parameter in parameters.items():
            if parameter.default is inspect.Parameter.empty and name not in options:
                raise InputError(f"the option {name} is missing; expected {in_words(hints[name])}")


def at_least(minimum: int, **values: int) -> None:
    """Raise `InputError` for the first of the named whole numbers that is below `minimum`."""
    for name, value in values.items():
        if value < minimum:
            raise InputError(f"{name} must be at least {minimum}, got {value}")


def _fits(value: Any, hint: Any) -> bool:
    """Whether `value` is what the annotation asks for; True and False are no numbers, and text is no list."""
    if get_origin(hint) in (Union, types.UnionType):
        return any(_fits(value, option) for option in get_args(hint))
    if isinstance(value, bool):
        return hint is bool
    if isinstance(value, str):
        return hint is str
    if hint is float:
        return isinstance(value, (int, float))
    return isinstance(value, _plain(hint))


def in_words(hint: Any) -> str:
    """What an option's annotation asks for; that it may be left out is not said."""
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(in_words(option) for option in get_args(hint) if option is not types.NoneType)
    return _WORDS.get(_plain(hint), str(hint))


def _plain(hint: Any) -> Any:
    return get_origin(hint) or hint
