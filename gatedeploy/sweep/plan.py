"""A sweep before it begins: the recipe, what of it is varied, and that every point of it can be trained."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gatedeploy.assembly import build_parts
from gatedeploy.errors import InputError, located
from gatedeploy.specs import Task
from gatedeploy.sweep.grid import SEED, TARGET, Point, Value, in_words, points, read_over
from gatedeploy.training.recipe import Recipe
from gatedeploy.training.recipe_file import load_recipe
from gatedeploy.training.snapshots import is_ignored, said_nothing_of
from gatedeploy.training.stages import Parts, check_collapsible


@dataclass(frozen=True)
class Plan:
    """What is swept over.

    Args:
        source: the recipe's file or name.
        changes: `key=value` for all points.
        backbone: `module:function` of the user's own backbone, if there is one.
        base: the recipe with these.
        parts: what it names.
        over: by key, the values that it takes.
        seeds: each point is trained with each of them.
    """

    source: str
    changes: tuple[str, ...]
    backbone: str | None
    base: Recipe
    parts: Parts
    over: Mapping[str, tuple[Value, ...]]
    seeds: tuple[int, ...]

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What every network of the sweep is trained on."""
        return self.base.chosen_tasks(self.parts.data.tasks)

    @property
    def points(self) -> list[dict[str, Value]]:
        """Every combination of the values."""
        return points(self.over)

    def at(self, point: Point, seed: int) -> tuple[Recipe, Parts]:
        """The recipe of a point with a seed, and what it names; of an empty point the recipe as it stands."""
        recipe = self.recipe(point, seed)
        return build_parts(recipe, self.source, self.backbone, data=self.parts.data)

    def recipe(self, point: Point, seed: int) -> Recipe:
        """The recipe of a point with a seed."""
        changes = [f"{key}={json.dumps(value)}" for key, value in {**point, SEED: seed}.items()]
        return load_recipe(self.source, [*self.changes, *changes])


def make_plan(
    source: str,
    changes: Sequence[str],
    over: Sequence[str],
    seeds: int,
    backbone: str | None = None,
    say: Callable[[str], None] | None = None,
) -> Plan:
    """Read what is to be swept over.

    Args:
        source: a recipe's file or name.
        changes: `key=value` for all points.
        over: `key=value,value`; see `read_over`.
        seeds: with how many each point is trained, counted from the recipe's own.
        backbone: `module:function` of the user's own backbone.
        say: is told what became of a file of pretrained weights.

    Raises:
        InputError: the recipe cannot be read or built, or what is to be varied cannot be.
    """
    base, parts = build_parts(load_recipe(source, changes), source, backbone, say)
    names = [task.name for task in base.chosen_tasks(parts.data.tasks)]
    fixed = list(changes)
    if not base.tasks:  # all that the data set offers; a key of one of them must not leave the others out
        fixed.append(f"tasks={json.dumps({name: {} for name in names})}")
        base, parts = build_parts(load_recipe(source, fixed), source, backbone, data=parts.data)
    first = base.train.seed
    values = read_over(over, names)
    return Plan(source, tuple(fixed), backbone, base, parts, values, tuple(range(first, first + seeds)))


def check_points(plan: Plan, some: Sequence[Point]) -> None:
    """Refuse points that could not be trained or collapsed, before any of them is.

    Raises:
        InputError: says which, and what stands in the way.
    """
    recipes = []
    for point in some:
        with located(f"--over {in_words(point)}", InputError):
            recipes.append(plan.recipe(point, plan.seeds[0]))
    seen = set()
    for point, recipe in zip(some, recipes, strict=True):
        kind = digest(recipe.plain(), (f"tasks.*.{TARGET}", SEED))  # neither decides what can be collapsed
        if kind not in seen:
            seen.add(kind)
            with located(f"--over {in_words(point)}", InputError):
                recipe, parts = plan.at(point, plan.seeds[0])
                check_collapsible(recipe, parts, recipe.chosen_tasks(parts.data.tasks))


def start_folder(out: Path, recipe: Recipe) -> Path:
    """Where single-task networks lie from which those of a recipe start; recipes that need the same ones share them."""
    return out / "starts" / digest(recipe.plain(), said_nothing_of("start"))


def digest(recipe: Mapping[str, Any], ignored: Sequence[str]) -> str:
    """What stands for all that a recipe says, but for the keys that are ignored."""
    kept = {".".join(key): value for key, value in _leaves(recipe, ()) if not is_ignored(key, ignored)}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:12]


def _leaves(plain: Any, key: tuple[str, ...]) -> list[tuple[tuple[str, ...], Any]]:
    if isinstance(plain, Mapping) and plain:
        return [leaf for name, value in plain.items() for leaf in _leaves(value, (*key, str(name)))]
    return [(key, plain)]
