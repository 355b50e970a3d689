"""Nothing documented goes unexecuted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.mark.slow
def test_the_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = blocks("python")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(example, "README.md", "exec"), names)
    assert (tmp_path / "bundle" / "model.onnx").is_file()
    assert getattr(names["depth"], "shape", None) == (2, 1, 32, 32)


def test_every_command_of_the_readme_exists() -> None:
    from gatedeploy.cli import app

    known = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    used = set(re.findall(r"gatedeploy (\w+) ", "\n".join(blocks("sh"))))
    assert used
    assert used <= known, f"the README uses commands that do not exist: {used - known}"
    for script in re.findall(r"^scripts/(\w+)", "\n".join(blocks("sh")), re.MULTILINE):
        assert (ROOT / "scripts" / script).is_file()


@pytest.mark.parametrize("page", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_every_file_that_a_page_names_exists(page: str) -> None:
    text = (ROOT / page).read_text()
    for name in re.findall(r"`((?:[\w.]+/)+[\w.]*|[\w]+\.(?:py|md))`", text):
        found = (ROOT / name).exists() or (ROOT / "gatedeploy" / name).exists()
        # Names of what a user's run writes are not ours to hold.
        assert found or name.startswith(("bundle/", "labels/", "runs/")), f"{page} names {name}, which is not there"
