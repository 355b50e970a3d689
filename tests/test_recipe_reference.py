from __future__ import annotations

import inspect
import re
import textwrap
from pathlib import Path
from types import ModuleType

import pytest

from gatedeploy.data import folder, multi_fashion, scenes
from gatedeploy.errors import InputError
from gatedeploy.recipe_reference import MARK, updated
from gatedeploy.training.recipe_file import load_recipe

PAGE = (Path(__file__).parent.parent / "docs" / "recipes.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.M | re.S)


def test_the_page_says_what_the_code_reads() -> None:
    assert updated(PAGE) == PAGE, "run: python -m gatedeploy.recipe_reference docs/recipes.md"


def test_a_page_without_the_mark_is_refused() -> None:
    with pytest.raises(ValueError, match="no line"):
        updated(PAGE.replace(MARK, ""))


@pytest.mark.parametrize("block", range(len(BLOCKS)))
def test_recipes_of_the_page_are_recipes(tmp_path: Path, block: int) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(BLOCKS[block], encoding="utf-8")
    load_recipe(file)
    file.write_text(BLOCKS[block] + "wrong: 1\n", encoding="utf-8")
    with pytest.raises(InputError, match="wrong: no such key"):
        load_recipe(file)


def test_there_are_recipes_on_the_page() -> None:
    assert len(BLOCKS) == 3


def test_the_page_and_the_code_show_a_folder_in_the_same_words() -> None:
    text = inspect.getdoc(inspect.getmodule(folder)) or ""
    shown = re.search(r"^    data:\n(?:      .*\n)+", text, re.M)
    assert shown is not None
    assert textwrap.dedent(shown.group()) in "\n".join(BLOCKS)


@pytest.mark.parametrize("module", [scenes, multi_fashion, folder])
def test_every_data_set_is_on_the_page(module: ModuleType) -> None:
    name = module.__name__.rpartition(".")[2]
    assert f"### data: {{name: {name}}}" in PAGE
