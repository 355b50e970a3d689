"""Every key a recipe may have, as Markdown, from the code that reads it.

python -m gatedeploy.recipe_reference docs/recipes.md        # writes the part of the page below its mark anew
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from gatedeploy import options
from gatedeploy.data.base import data_sets
from gatedeploy.files import write_text
from gatedeploy.models.registry import BACKBONES, HEADS, METHODS
from gatedeploy.training import balance_sections, recipe
from gatedeploy.training.sections import Section, hints, in_words

MARK = "<!-- Below: python -m gatedeploy.recipe_reference docs/recipes.md -->\n"
SECTIONS = {
    "The recipe": recipe.Recipe,
    "model": recipe.Model,
    "tasks.NAME": recipe.TaskSettings,
    "train": recipe.Train,
    "train.schedule": (recipe.Polynomial, recipe.Step, recipe.Constant),
    "train.balance": get_args(balance_sections.AnyBalance),
    "gates": recipe.Gates,
    "sparsity": recipe.Sparsity,
    "budget": recipe.Budget,
}
GIVEN = {
    "data": (),
    "model.backbone": ("in_channels", "size"),
    "model.head": ("in_channels", "out_channels", "size"),
    "method": ("backbone", "tasks", "heads", "example_input"),
}
"""What follows from picture, tasks and backbone, so that no recipe has to say it."""


def reference() -> str:
    """The tables, one for each section, and the options of all that is named."""
    parts = ["## Every key\n"]
    for name, section in SECTIONS.items():
        for each in section if isinstance(section, tuple) else (section,):
            parts.append(f"### {name}{_named(each)}\n\n{_first_sentence(each)}\n\n{_table(list(_keys(each)))}")
    parts.append("## What can be named\n")
    named: dict[str, Mapping[str, Callable[..., Any]]] = {
        "data": data_sets(),
        "model.backbone": BACKBONES,
        "model.head": {name: head.build for name, head in HEADS.items()},
        "method": METHODS,
    }
    parts += [
        f"### {key}: {{name: {name}}}\n\n{_options(key, build)}" for key in named for name, build in named[key].items()
    ]
    return "\n".join(parts)


def updated(page: str) -> str:
    """A page whose part below the mark says what the code says."""
    written, mark, _ = page.partition(MARK)
    if not mark:
        raise ValueError(f"no line {MARK!r} in the page")
    return f"{written}{mark}\n{reference()}"


def _named(section: type[Section]) -> str:
    name = hints(section).get("name")
    return f": {{name: {get_args(name)[0]}}}" if name else ""


def _keys(section: type[Section]) -> Iterator[tuple[str, str, str, str]]:
    meaning = _arguments(section)
    for field in dataclasses.fields(section):  # type: ignore[arg-type]
        if field.name == "name":
            continue
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if isinstance(default, Section):
            default = default.plain().get("name", "as below")
        shown = "" if default is dataclasses.MISSING else _value(default)
        yield field.name, in_words(hints(section)[field.name]), shown, meaning[field.name]


def _options(key: str, build: Callable[..., Any]) -> str:
    meaning = _arguments(build)
    rows = []
    for name, option in inspect.signature(build, eval_str=True).parameters.items():
        if name not in GIVEN[key]:
            default = "" if option.default is option.empty else _value(option.default)
            rows.append((name, options.in_words(option.annotation), default, meaning[name]))
    return f"{_first_sentence(build)}\n\n{_table(rows)}"


def _value(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, tuple):
        return str(list(value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _first_sentence(thing: Any) -> str:
    """What the docstring of a section or function says first, up to the first empty line."""
    return " ".join((inspect.getdoc(thing) or "").partition("\n\n")[0].split())


def _arguments(thing: Any) -> dict[str, str]:
    """The `Args:` of a docstring by name."""
    text = re.search(r"^Args:\n((?:    .*\n?)+)", inspect.getdoc(thing) or "", re.M)
    found: dict[str, str] = {}
    for entry in re.finditer(r"^    (\w+): (.*(?:\n {8}.*)*)", text.group(1) if text else "", re.M):
        found[entry.group(1)] = " ".join(entry.group(2).split()).replace("None", "null")
    return found


def _table(rows: Sequence[tuple[str, str, str, str]]) -> str:
    if not rows:
        return "No options.\n"
    lines = ["| key | may be | if left out | meaning |", "|---|---|---|---|"]
    lines += [f"| {' | '.join((f'`{name}`', *cells))} |" for name, *cells in rows]
    return "".join(f"{line}\n" for line in lines)


if __name__ == "__main__":
    page = Path(sys.argv[1])
    write_text(page, updated(page.read_text(encoding="utf-8")))
