"""Nothing documented goes unexecuted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def blocks(language: str, page: str = "README.md") -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


@pytest.mark.slow
def test_the_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = blocks("python")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(example, "README.md", "exec"), names)
    assert (tmp_path / "bundle" / "model.onnx").is_file()
    assert getattr(names["depth"], "shape", None) == (2, 1, 32, 32)


LINES = "\n".join(blocks("sh")).splitlines()
PAGES = ("deployment", "measuring", "sweeps")
OTHERS = [line for page in PAGES for line in "\n".join(blocks("sh", f"docs/{page}.md")).splitlines()]
COMMANDS = [line.partition("#")[0].split()[1:] for line in LINES + OTHERS if line.startswith("gatedeploy ")]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_line_of_the_readme_is_understood(words: list[str]) -> None:
    from typer.main import get_group

    from gatedeploy.cli.app import app

    group = get_group(app)
    with group.make_context("gatedeploy", list(words)) as context:
        name, command, rest = group.resolve_command(context, list(words))
        assert command is not None
        command.make_context(name, rest, parent=context).close()  # raises for an unknown option or a missing value


def test_every_script_of_the_readme_exists() -> None:
    scripts = [line for line in LINES if line.startswith("scripts/")]
    assert scripts
    assert COMMANDS  # or the test above would try nothing
    for script in scripts:
        assert (ROOT / script.split()[0]).is_file()


@pytest.mark.parametrize("page", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_every_file_that_a_page_names_exists(page: str) -> None:
    text = (ROOT / page).read_text()
    for name in re.findall(r"`((?:[\w.]+/)+[\w.]*|[\w]+\.(?:py|md))`", text):
        found = (ROOT / name).exists() or (ROOT / "gatedeploy" / name).exists()
        # Names of what a user's run writes are not ours to hold.
        theirs = name.startswith(("bundle/", "labels/", "runs/", "sweeps/"))
        assert found or theirs, f"{page} names {name}, which is not there"
