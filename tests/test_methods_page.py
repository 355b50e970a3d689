"""docs/methods.md names every method, its recipe lines are read, and its pictures are those that the script draws."""

from __future__ import annotations

import re
import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import torch

from gatedeploy.gating.placing import OVER_WHOLES, check_placing
from gatedeploy.models.registry import METHODS
from gatedeploy.options import check_options
from gatedeploy.specs import Task
from gatedeploy.training.recipe import Gates, Recipe
from gatedeploy.training.recipe_file import bundled_recipes, parse_yaml

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "methods.md").read_text(encoding="utf-8")
SECTIONS = re.split(r"^## ", PAGE, flags=re.M)[1:]
BLOCK, SHOWN = re.compile(r"^```yaml\n(.*?)^```$", re.M | re.S), re.compile(r"^!\[.+\]\(pictures/(\w+)\.svg\)$", re.M)
LEAST: dict[str, Any] = {
    "data": {"name": "scenes"},
    "model": {"backbone": {"name": "resnet20"}, "head": {"name": "dense"}},
    "train": {"epochs": 1},
}
FRAGMENTS = [(section, parse_yaml(text, "methods.md")) for section in SECTIONS for text in BLOCK.findall(section)]


def merged(base: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    nested = {key: merged(base[key], value) for key, value in more.items() if isinstance(base.get(key), Mapping)}
    return {**base, **more, **nested}


@pytest.mark.parametrize("fragment", [fragment for _, fragment in FRAGMENTS], ids=str)
def test_the_lines_of_a_method_are_those_of_a_recipe(fragment: Mapping[str, Any]) -> None:
    recipe = Recipe.from_plain(merged(LEAST, fragment))
    gates = recipe.gates.placing
    check_placing(gates["sites"], gates["group"], gates["tie"], gates["gates"], leaves=(), has_heads=True)
    if recipe.method is not None:
        tasks = (Task("depth", "depth"), Task("normals", "normals"))
        given = {"backbone": torch.nn.Identity(), "tasks": tasks, "heads": {}, "example_input": torch.zeros(2, 3, 8, 8)}
        check_options(METHODS[recipe.method.name], {**given, **recipe.method.options}, "methods.md")


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_section_with_its_picture(name: str) -> None:
    (section,) = [section for section, fragment in FRAGMENTS if fragment == {"method": {"name": name}}]
    assert SHOWN.findall(section) == [name]


@pytest.mark.parametrize("site", ["encoder", "decoder"])
@pytest.mark.parametrize("kind", OVER_WHOLES)
def test_every_gate_over_wholes_has_a_section_with_its_picture(kind: str, site: str) -> None:
    (section,) = [each for each, fragment in FRAGMENTS if fragment == {"gates": {"sites": site, "kind": kind}}]
    picture = ("smtl" if kind == "soft" else "l_smtl") + ("_c" if site == "decoder" else "")
    assert picture in SHOWN.findall(section)


def test_every_kind_of_gate_is_on_the_page() -> None:
    kinds = {Recipe.from_plain(merged(LEAST, fragment)).gates.kind for _, fragment in FRAGMENTS}
    assert kinds == set(get_args(get_type_hints(Gates)["kind"]))


def test_pictures_are_those_that_the_script_draws(tmp_path: Path) -> None:
    runpy.run_path(str(DOCS / "pictures" / "draw.py"))["main"](tmp_path)
    drawn = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert drawn == {file.name: file.read_bytes() for file in (DOCS / "pictures").glob("*.svg")}, (
        "run: python docs/pictures/draw.py"
    )
    assert sorted(f"{name}.svg" for name in SHOWN.findall(PAGE)) == sorted(drawn)


def test_links_within_the_page_lead_somewhere() -> None:
    heads = re.findall(r"^#+ (.+)$", PAGE, re.M)
    anchors = {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
    assert {link for link in re.findall(r"\]\(#([^)]+)\)", PAGE) if link not in anchors} == set()


def test_the_recipes_that_come_along_are_named() -> None:
    page = (DOCS / "recipes.md").read_text(encoding="utf-8")
    assert [name for name in bundled_recipes() if f"`{name}`" not in page] == []
