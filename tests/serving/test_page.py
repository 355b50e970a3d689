"""What docs/serving.md tells its reader to type."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from gatedeploy.exporters import Bundle
from tests.serving.page import PAGE, WRITING

# Tests that share the bundle are run by one process.
pytestmark = pytest.mark.xdist_group("serving")


def test_the_page_writes_a_repository(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(bundle.path, tmp_path / "runs" / "demo" / "rooms")
    monkeypatch.chdir(tmp_path)
    exec(WRITING, {})
    assert (tmp_path / "repository" / "rooms" / "1" / "model.onnx").is_file()


LINES = re.findall(r"^gatedeploy (.*)$", PAGE, re.MULTILINE)


@pytest.mark.parametrize("line", LINES)
def test_every_command_line_of_the_page_is_understood(line: str) -> None:
    from typer.main import get_group

    from gatedeploy.cli.app import app

    group = get_group(app)
    with group.make_context("gatedeploy", line.split()) as context:
        name, command, rest = group.resolve_command(context, line.split())
        assert command is not None
        command.make_context(name, rest, parent=context).close()
