"""Recipes as frozen dataclasses that check themselves, whether they come from a file or from Python.

A class derived from `Section` states its keys as annotated fields; what may stand there is in the annotation:

    epochs: Annotated[int, Within(1)]

Every value is checked when the section is made, so an impossible section does not exist.
"""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from gatedeploy.errors import InputError, closest

AnySection = TypeVar("AnySection", bound="Section")


@dataclass(frozen=True)
class Within:
    """Where a number may lie.

    Args:
        low: the smallest, itself allowed unless `above`.
        high: the largest, itself allowed.
        above: whether it must be greater than `low`.
    """

    low: float
    high: float = math.inf
    above: bool = False

    def allows(self, value: float) -> bool:
        """Whether `value` lies there."""
        return (self.low < value if self.above else self.low <= value) and value <= self.high

    def __str__(self) -> str:
        if self.above:
            return f"above {self.low:g}" + (f" and at most {self.high:g}" if self.high < math.inf else "")
        return f"from {self.low:g} to {self.high:g}" if self.high < math.inf else f"of at least {self.low:g}"


class FieldError(InputError):
    """A value that cannot stand where it stands: `a.dotted.key: what was expected, what was found`."""

    def __init__(self, path: tuple[str, ...], sentence: str) -> None:
        super().__init__(f"{'.'.join(path)}: {sentence}" if path else sentence)
        self.path = path
        self.sentence = sentence


class Section:
    """Base of the sections of a recipe; see the module's text."""

    def __post_init__(self) -> None:
        for name, hint in hints(type(self)).items():
            with _under(name):
                object.__setattr__(self, name, _converted(getattr(self, name), hint))

    @classmethod
    def from_plain(cls: type[AnySection], plain: Any) -> AnySection:
        """Read what `plain` wrote, or what YAML says; nothing at all means the defaults.

        Raises:
            FieldError: an unknown key, a missing one, or a value that cannot stand there.
        """
        plain = _mapping({} if plain is None else plain)
        known = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
        for key in plain:
            if key not in known:
                raise FieldError((key,), f"no such key; there are {', '.join(known)}{closest(key, known)}")
        for field in dataclasses.fields(cls):  # type: ignore[arg-type]
            if field.name not in plain and _required(field):
                raise FieldError((field.name,), f"is missing; expected {in_words(hints(cls)[field.name])}")
        return cls(**plain)

    def plain(self) -> dict[str, Any]:
        """All keys and values as JSON types; `from_plain` makes the same section of it."""
        return {name: _plain(getattr(self, name)) for name in hints(type(self))}


@dataclass(frozen=True)
class Component(Section):
    """Something that is looked up by name elsewhere, with options that only it knows: `{name: resnet20, width: 0.25}`.

    Args:
        name: what to look up.
        options: JSON values by name; checked by whoever knows the component.
    """

    name: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        for key, value in self.options.items():
            with _under(key):
                if key == "name":
                    raise FieldError((), "is the component's own name, not an option")
                _check_json(value)
        object.__setattr__(self, "options", _plain(self.options))

    @classmethod
    def from_plain(cls, plain: Any) -> Component:
        """Read `{name: …, option: value, …}`."""
        options = {key: _numbers_as_text(item) for key, item in _mapping(plain).items()}
        if "name" not in options:
            raise FieldError(("name",), "is missing; expected text")
        return cls(options.pop("name"), options)

    def plain(self) -> dict[str, Any]:
        """`{name: …, option: value, …}`."""
        return {"name": self.name, **{key: _plain(value) for key, value in self.options.items()}}


@contextmanager
def _under(key: str) -> Iterator[None]:
    try:
        yield
    except FieldError as error:
        raise FieldError((key, *error.path), error.sentence) from None


def hints(cls: type) -> dict[str, Any]:
    """The annotations of a section by key, with what they say of ranges."""
    return get_type_hints(cls, include_extras=True)


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _mapping(value: Any) -> dict[str, Any]:
    """A copy of a mapping whose keys are text."""
    if not isinstance(value, Mapping):
        raise FieldError((), f"must be a mapping of keys to values, got {_shown(value)}")
    for key in value:
        if not isinstance(key, str):
            raise FieldError((), f"keys must be text, got {key!r}")
    return dict(value)


def _numbers_as_text(value: Any) -> Any:
    """An option whose keys are whole numbers, such as pixel values, with text for them: JSON knows no other keys."""
    if isinstance(value, Mapping):
        return {str(key) if type(key) is int else key: _numbers_as_text(item) for key, item in value.items()}
    return [_numbers_as_text(item) for item in value] if isinstance(value, (list, tuple)) else value


def _converted(value: Any, hint: Any) -> Any:
    """`value` as the annotation wants it; `FieldError` if it cannot be that."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        try:
            converted = _converted(value, args[0])
        except FieldError:
            raise _wrong(value, hint) from None  # names the range too
        if not args[1].allows(converted):
            raise _wrong(value, hint)
        return converted
    if origin is Literal:
        if value not in args:
            raise FieldError(
                (), f"must be {in_words(hint)}, got {_shown(value)}{closest(str(value), [*map(str, args)])}"
            )
        return value
    if origin in (Union, types.UnionType):
        return _one_of(value, hint, args)
    if isinstance(hint, type) and issubclass(hint, Section):
        return value if isinstance(value, hint) else hint.from_plain(value)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise _wrong(value, hint)
        return tuple(_converted(item, args[0]) for item in value)
    if hint is float:
        return _number(value, hint)
    if origin is not None:  # Mapping[str, …]
        return _all_converted(_mapping(value), args[1])
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise _wrong(value, hint)
    return value


def _number(value: Any, hint: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _wrong(value, hint)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _wrong(value, hint)
    return number


def _all_converted(values: dict[str, Any], hint: Any) -> dict[str, Any]:
    converted = {}
    for key, value in values.items():
        with _under(key):
            converted[key] = value if hint is Any else _converted(value, hint)
    return converted


def _one_of(value: Any, hint: Any, options: tuple[Any, ...]) -> Any:
    """A union: of None and something, of words and something, or of sections that differ in `name`."""
    if value is None and type(None) in options:
        return None
    sections = [option for option in options if isinstance(option, type) and issubclass(option, Section)]
    if len(sections) > 1:
        return _named_section(value, sections)
    rest = [option for option in options if option is not type(None)]
    for option in rest:
        if get_origin(option) is Literal and isinstance(value, str):
            return _converted(value, option)
    last = rest[-1]
    if len(rest) > 1 and not isinstance(value, (list, tuple)):
        raise _wrong(value, hint)
    return _converted(value, last)


def _named_section(value: Any, sections: list[type[Section]]) -> Section:
    for section in sections:
        if isinstance(value, section):
            return value
    plain = _mapping(value)
    by_name: dict[str, type[Section]] = {get_args(hints(section)["name"])[0]: section for section in sections}
    if "name" not in plain:
        raise FieldError(("name",), f"is missing; expected {' or '.join(by_name)}")
    name = str(plain["name"])
    if name not in by_name:
        raise FieldError(
            ("name",), f"must be {' or '.join(by_name)}, got {_shown(plain['name'])}{closest(name, [*by_name])}"
        )
    return by_name[name].from_plain(plain)


def _wrong(value: Any, hint: Any) -> FieldError:
    return FieldError((), f"must be {in_words(hint)}, got {_shown(value)}")


def _shown(value: Any) -> str:
    """What was found, cut short: it may be anything."""
    try:
        text = repr(value)
    except ValueError:  # Python does not write whole numbers of thousands of digits
        return "a number too large to show"
    return text if len(text) <= 60 else f"{text[:57]}..."


_WORDS: dict[Any, str] = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def in_words(hint: Any) -> str:
    """What an annotation allows, in words."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return f"{in_words(args[0])} {args[1]}"
    if origin is Literal:
        return " or ".join(map(str, args))
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys("null" if option is type(None) else in_words(option) for option in args))
    if origin is tuple:
        return "a list"
    return _WORDS.get(hint, "a mapping")


def _plain(value: Any) -> Any:
    if isinstance(value, Section):
        return value.plain()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _check_json(value: Any) -> None:
    """Options travel in checkpoints and reports, so they are JSON values."""
    if isinstance(value, Mapping):
        for key, item in _mapping(value).items():
            with _under(key):
                _check_json(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _check_json(item)
    elif isinstance(value, float) and not math.isfinite(value):
        raise FieldError((), f"must be a finite number, got {_shown(value)}")
    elif not isinstance(value, (str, int, float, bool, type(None))):
        raise FieldError((), f"must be text, a number, true, false, null, a list or a mapping, got {_shown(value)}")
