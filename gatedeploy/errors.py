"""The two things that can go wrong, told apart because the command line tells them apart.

Every message says what is wrong, where, what was expected, and what to do about it. Whoever knows the name of the
file adds it, once, with `located`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager


class GatedeployError(Exception):
    """Base of every error that is gatedeploy's to explain; `exit_code` is what the command line ends with."""

    exit_code = 1


class InputError(GatedeployError):
    """What the user gave cannot be used: a recipe, a file, a backbone, an argument (exit code 2)."""

    exit_code = 2


class UnreadableError(InputError):
    """A picture or a label cannot be read: its file is damaged, or gone."""


class CheckError(GatedeployError):
    """The input was fine and a check failed: parity, a hash, a loss that is no number (exit code 1)."""


class MissingExtraError(InputError):
    """An optional library is not installed.

    Args:
        what: the thing that needs it, e.g. "training".
        library: the library's import name, e.g. "lightning_fabric".
        extra: the extra of gatedeploy that brings it, e.g. "train".
    """

    def __init__(self, what: str, library: str, extra: str) -> None:
        super().__init__(f"{what} needs {library}, which is not installed: pip install 'gatedeploy[{extra}]'")


@contextmanager
def located(where: str, kind: type[GatedeployError] = GatedeployError) -> Iterator[None]:
    """Put `where: ` before the message of any gatedeploy error of `kind` raised inside, keeping its type."""
    try:
        yield
    except kind as error:
        message = str(error)
        if message.startswith(f"{where}: "):
            raise
        error.args = (f"{where}: {message}",)
        raise


def run_program(main: Callable[[], None]) -> None:
    """Run the `main` of a program; an error of gatedeploy's ends it with its sentence and its exit code."""
    try:
        main()
    except GatedeployError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def check_known(what: str, name: str, known: Collection[str]) -> None:
    """Raise `InputError` unless `name`, the value of `what`, is one of those that are known."""
    if name not in list(known):  # a list, for who knows whether a stranger's value can be hashed
        raise InputError(f"{what} {name or repr(name)}: expected {' or '.join(known)}{closest(name, list(known))}")


def check_type(what: str, value: object, *kinds: type) -> None:
    """Raise `InputError` unless `value`, the argument `what`, is of one of these types; a bool is no int."""
    if isinstance(value, kinds) and not (isinstance(value, bool) and bool not in kinds):
        return
    expected = " or ".join("None" if kind is type(None) else kind.__name__ for kind in kinds)
    raise InputError(f"{what}: expected {expected}, got {value!r:.80} ({type(value).__name__})")


def closest(name: object, known: list[str] | tuple[str, ...]) -> str:
    """`; did you mean X?` for the known name nearest to `name`, or an empty string."""
    import difflib

    near = difflib.get_close_matches(str(name), known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def first_line(error: BaseException) -> str:
    """What an error of somebody else's says, in one line; its type where it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
