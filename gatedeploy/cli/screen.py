"""Where output goes: results to standard output, everything else to standard error.

With `--json` the result is one JSON document; without, a text for people.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from gatedeploy.benchmarks.words import NBSP, human
from gatedeploy.specs import finite
from gatedeploy.training.recipe_file import bundled_recipes

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]


def print_json(document: Any) -> None:
    """The result, as JSON, which knows no NaN and no infinity: they are null."""
    json.dump(finite(document), sys.stdout, indent=2, allow_nan=False)
    sys.stdout.write("\n")


def say(text: str) -> None:
    """A line of the result, for people."""
    Console(soft_wrap=True, markup=False, highlight=False).print(text)


def note(text: str) -> None:
    """What happens meanwhile."""
    Console(stderr=True, soft_wrap=True, markup=False, highlight=False).print(text)


def note_bundled(source: str) -> None:
    """Say which of two is read where a bundled recipe is called like a file or folder here."""
    if source in bundled_recipes() and Path(source).exists():
        note(f"Reading the bundled recipe {source}; the file or folder of this name here is ./{source}")


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """A table of the result; columns after the first are numbers."""
    made = Table(title=title or None, box=None, title_justify="left", pad_edge=False)
    for position, heading in enumerate(headings):
        made.add_column(heading, justify="left" if position == 0 else "right")
    for row in rows:
        made.add_row(*row)
    console = Console(markup=False, highlight=False)
    # A file or a pipe has no width of its own; a table must not be cut there.
    console.width = console.width if sys.stdout.isatty() else 200
    console.print(made)


def count(number: float) -> str:
    """A large number for people: 1.23 M."""
    return human(number).replace(NBSP, " ").rstrip()
