"""The seconds before a command does anything."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import gatedeploy as gd

# The first library that takes long; somebody presses Ctrl-C while it is imported.
SLOW = "import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(60)"
SCRIPT = "import sys; from gatedeploy.cli import main; sys.exit(main())"
"""What pip makes of the entry point."""


def python(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=50,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # tests in the background inherit that it is ignored
    )


@pytest.mark.parametrize("words", [("-m", "gatedeploy"), ("-c", SCRIPT)], ids=["module", "script"])
def test_ctrl_c_while_libraries_are_imported(tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "torch.py").write_text(SLOW)
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    done = python(*words, "train", "demo", PYTHONPATH=path)
    assert done.stderr == "error: interrupted; what stands under a final name is complete\n"
    assert done.returncode == 130


def test_who_ignores_ctrl_c_is_not_stopped_by_it(tmp_path: Path) -> None:
    """A command in the background of a script, or under nohup."""
    (tmp_path / "torch.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGINT); os._exit(7)")
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    ignoring = f"trap '' INT; exec {sys.executable} -m gatedeploy --help"
    assert subprocess.run(["sh", "-c", ignoring], env={**os.environ, "PYTHONPATH": path}, timeout=50).returncode == 7


def test_whoever_is_asked_to_end_leaves_nothing_half_written(folder: Path, tmp_path: Path) -> None:
    """By a scheduler, a container, `kill`: when the bundle is complete but for its last file's way to the disk."""
    code = (
        "import os, signal; from gatedeploy import files; "
        "files._to_disk = lambda file: os.kill(os.getpid(), signal.SIGTERM); "
        "from gatedeploy.cli import main; main()"
    )
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    words = ("export", str(folder / "collapsed.safetensors"), "--onnx", "--out", str(tmp_path / "bundle"))
    done = python("-c", code, *words, TMPDIR=str(temporary))
    assert done.stderr.splitlines()[-1] == "error: interrupted; what stands under a final name is complete"
    assert done.returncode == 128 + signal.SIGTERM
    ours = [path.name for path in tmp_path.rglob("*") if "bundle" in path.name or "gatedeploy" in path.name]
    assert ours == [], "libraries may leave what is theirs"


def test_the_package_imports_nothing_before_it_is_asked() -> None:
    """Or Ctrl-C would come before anybody could answer it."""
    code = "import sys, gatedeploy.cli; print(sorted({'torch', 'numpy', 'typer'} & set(sys.modules)))"
    assert python("-c", code).stdout == "[]\n"


def test_no_command_waits_for_what_only_pictures_need() -> None:
    code = "import sys, gatedeploy.cli.app; print('matplotlib' in sys.modules)"
    assert python("-c", code).stdout == "False\n"


def test_what_the_package_offers() -> None:
    names: dict[str, object] = {}
    exec("from gatedeploy import *", names)
    assert names["collapse"] is gd.collapse
    assert gd.collapse.__module__ == "gatedeploy.compiler"
    with pytest.raises(AttributeError, match="module 'gatedeploy' has no attribute 'colapse'"):
        _ = gd.colapse  # type: ignore[attr-defined]
