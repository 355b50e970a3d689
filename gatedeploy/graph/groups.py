"""Numbers that belong together."""

from __future__ import annotations


class Groups:
    """A partition of 0 … count - 1, at first every number alone (union-find); a group goes by its least number."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def unite(self, one: int, other: int) -> None:
        """Make one group of the groups of both."""
        low, high = sorted((self.of(one), self.of(other)))
        self._parent[high] = low

    def of(self, number: int) -> int:
        """The group of a number."""
        parent = self._parent
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number
