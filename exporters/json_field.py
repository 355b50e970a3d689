"""A JSON document that may come from a stranger, read value by value: each is of the kind it should be, or refused."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from gatedeploy.errors import InputError

T = TypeVar("T")

KINDS = {dict: "an object", list: "a list", str: "text", bool: "a truth value"}


@dataclass(frozen=True)
class Field:
    """A value of a JSON document.

    Args:
        value: as `json.loads` returns it.
        where: the keys that lead to it, e.g. `outputs[0].shape`.
    """

    value: Any
    where: str = ""

    def refuse(self, problem: str) -> NoReturn:
        """Raise `InputError`, naming the place."""
        raise InputError(f"{self.where}: {problem}" if self.where else problem)

    def __getitem__(self, key: str) -> Field:
        """A member of an object."""
        if key not in self._expect(dict, "an object"):
            self.refuse(f"has no {key!r}")
        return Field(self.value[key], f"{self.where}.{key}" if self.where else key)

    @property
    def is_null(self) -> bool:
        """Whether there is nothing."""
        return self.value is None

    def items(self) -> list[Field]:
        """The values of a list."""
        values = self._expect(list, "a list")
        return [Field(value, f"{self.where}[{number}]") for number, value in enumerate(values)]

    def all(self, read: Callable[[Field], T]) -> tuple[T, ...]:
        """The values of a list, each read."""
        return tuple(map(read, self.items()))

    def members(self, read: Callable[[Field], T]) -> dict[str, T]:
        """The members of an object, each read."""
        members = self._expect(dict, "an object").items()
        return {key: read(Field(value, f"{self.where}.{key[:80]}")) for key, value in members}

    def optional(self, read: Callable[[Field], T]) -> T | None:
        """The value, read, or None where there is none."""
        return None if self.is_null else read(self)

    def text(self) -> str:
        """A text."""
        return str(self._expect(str, "text"))

    def one_of(self, known: Collection[str]) -> str:
        """One of a few texts."""
        if self.text() not in known:
            self.refuse(f"{self.value[:80]!r}; known are {', '.join(known)}")
        return str(self.value)

    def count(self) -> int:
        """A whole number, 0 or more."""
        if type(self.value) is not int or self.value < 0:
            self.refuse(f"expected a whole number from 0 on, got {self._kind()}")
        return self.value

    def number(self) -> float:
        """A number."""
        if type(self.value) not in (int, float):
            self.refuse(f"expected a number, got {self._kind()}")
        try:
            number = float(self.value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            self.refuse("a number that is too large")
        return number

    def _expect(self, kind: type, called: str) -> Any:
        if type(self.value) is not kind:
            self.refuse(f"expected {called}, got {self._kind()}")
        return self.value

    def _kind(self) -> str:
        if type(self.value) in (int, float):
            return str(self.value)[:40]
        return KINDS.get(type(self.value), "null")
