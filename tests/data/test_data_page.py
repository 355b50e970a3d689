"""docs/data.md: its recipes are recipes, and say what the modules say."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from gatedeploy.assembly import describe_parts
from gatedeploy.data import celeba, cityscapes, nyud, pascal_context, taskonomy
from gatedeploy.data.base import data_sets
from gatedeploy.training.recipe_file import load_recipe

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
BLOCKS = {
    yaml.safe_load(block)["data"]["name"]: block for block in re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.M | re.S)
}


@pytest.mark.parametrize("module", [celeba, cityscapes, nyud, pascal_context, taskonomy])
def test_page_and_module_show_the_same_recipe(tmp_path: Path, module: ModuleType) -> None:
    name = module.__name__.rpartition(".")[2]
    text = inspect.getdoc(inspect.getmodule(module)) or ""
    shown: dict[str, Any] = yaml.safe_load(text[text.index("    data:\n") :])
    assert yaml.safe_load(BLOCKS[name])["data"] == shown["data"]
    file = tmp_path / "recipe.yaml"
    file.write_text(BLOCKS[name], encoding="utf-8")
    recipe = load_recipe(file)
    described, _, make_head = describe_parts(recipe, str(file))
    for task in recipe.chosen_tasks(described.tasks):
        make_head(task)


def test_every_data_set_is_named() -> None:
    assert [name for name in data_sets() if f"| `{name}` |" not in PAGE] == []
