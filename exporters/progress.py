"""How work that takes minutes tells how far it is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Is told a phase, how many of its steps are done, and how many there are."""


def untold(phase: str, done: int, steps: int) -> None:
    """The progress of work that nobody watches."""
