"""The C++ project is handed out whole, to a folder of its own; that it builds is tested in tests/cpp."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gatedeploy.cli.app import run
from gatedeploy.errors import GatedeployError, InputError
from gatedeploy.exporters.cpp_project import PARTS, SOURCES, write_cpp_project
from tests.cli.conftest import folder  # noqa: F401  a fixture


def test_it_is_whole_and_without_its_tests(tmp_path: Path) -> None:
    out = write_cpp_project(tmp_path / "deep" / "project")
    assert {file.name for file in out.iterdir()} == set(PARTS)
    for file in SOURCES.rglob("*"):
        copy = out / file.relative_to(SOURCES)
        ours = file.is_file() and file.relative_to(SOURCES).parts[0] in PARTS
        assert not ours or copy.read_bytes() == file.read_bytes()
    assert not (out / "tests").exists()


def test_a_folder_of_the_users_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    out = write_cpp_project(tmp_path / "empty")
    (out / "CMakeLists.txt").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("empty", "link"):
        with pytest.raises(InputError, match=f"{name}: exists; the C.. project is written to a folder of its own"):
            write_cpp_project(tmp_path / name)
    assert (out / "CMakeLists.txt").read_text() == "mine"


def test_no_disk_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(GatedeployError, match="could not be written: No space left on device"):
        write_cpp_project(tmp_path / "project")
    assert not any(tmp_path.iterdir())


def test_the_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    words = ["export", str(folder / "collapsed.safetensors"), "--onnx", "--out", str(tmp_path / "bundle")]
    assert run([*words, "--cpp", str(tmp_path / "project"), "--triton", str(tmp_path / "repository")]) == 0
    told = capsys.readouterr().err
    assert f"Wrote {tmp_path / 'project'}, a CMake project" in told
    assert f"Wrote {tmp_path / 'repository/bundle'}, a model of Triton's" in told
    assert (tmp_path / "repository/bundle/config.pbtxt").is_file()
    assert run([*words, "--cpp", str(tmp_path / "project")]) == 2
    assert "exists; the C++ project" in capsys.readouterr().err
