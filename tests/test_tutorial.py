"""The tutorial is run, block by block, as a reader would."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parent.parent / "docs" / "your_backbone.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.mark.slow
def test_every_block_runs_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One whose first line is a comment with a file's name is that file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    names: dict[str, object] = {"__name__": "tutorial"}
    languages = []
    for language, text in BLOCK.findall(PAGE.read_text()):
        languages.append(language)
        file = re.match(r"# (\w+\.\w+)\n", text)
        if file:
            (tmp_path / file[1]).write_text(text)
        elif language == "python":
            exec(compile(text, str(PAGE), "exec"), names)
        else:
            for line in text.splitlines():
                command, *words = shlex.split(line)
                assert command == "gatedeploy"
                done = subprocess.run([sys.executable, "-m", command, *words], capture_output=True, text=True)
                assert done.returncode == 0, f"{line}\n{done.stderr}"
    assert {"python", "yaml", "sh"} == set(languages)
    assert (tmp_path / "bundle" / "model.onnx").is_file()
    assert (tmp_path / "runs" / "mine" / "bundle" / "model.onnx").is_file()
