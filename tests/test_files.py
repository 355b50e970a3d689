from __future__ import annotations

import errno
import hashlib
import os
import re
import signal
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

import gatedeploy as gd
from gatedeploy.files import check_writable, held_back, replacing_file, replacing_folder, sha256

MARKER = "manifest.json"
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
INTERRUPTIONS: list[tuple[BaseException, type[BaseException]]] = [
    (KeyboardInterrupt(), KeyboardInterrupt),
    (SystemExit(1), SystemExit),
    (ValueError("wrong"), ValueError),
    (gd.CheckError("differs"), gd.CheckError),
    (FULL, gd.GatedeployError),
]
interrupted = pytest.mark.parametrize(("raised", "seen"), INTERRUPTIONS, ids=lambda it: type(it).__name__)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


def folder_of(path: Path, content: str) -> Path:
    """A folder of ours with this content."""
    path.mkdir()
    (path / MARKER).write_text(content)
    return path


def write_half(path: Path, raised: BaseException) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("half")
    raise raised


# ---------------------------------------------------------------- a file


def test_a_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "file.txt"
    with replacing_file(path) as temporary:
        assert temporary.parent == path.parent  # or it could not be renamed
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert names(path.parent) == ["file.txt"]


def test_a_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with replacing_file(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


@interrupted
@pytest.mark.parametrize("before", [True, False])
def test_an_interrupted_file_is_as_it_was(
    tmp_path: Path, raised: BaseException, seen: type[BaseException], before: bool
) -> None:
    path = tmp_path / "file.txt"
    if before:
        path.write_text("old")
    with pytest.raises(seen), replacing_file(path) as temporary:
        write_half(temporary, raised)
    assert names(tmp_path) == (["file.txt"] if before else [])
    assert not before or path.read_text() == "old"


def test_a_full_disk_is_explained(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    message = (
        "file.txt: could not be written: No space left on device; nothing was changed under this name. Next: make room"
    )
    with pytest.raises(gd.GatedeployError, match=message) as caught, replacing_file(path):
        raise FULL
    assert not isinstance(caught.value, gd.InputError)


@pytest.mark.parametrize(("owner", "name"), [(os, "fsync"), (Path, "replace")])
def test_a_failure_at_the_very_end_leaves_the_old_file(
    tmp_path: Path, owner: object, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise FULL

    path = tmp_path / "file.txt"
    path.write_text("old")
    monkeypatch.setattr(owner, name, fail)
    with pytest.raises(gd.GatedeployError, match="No space left"), replacing_file(path) as temporary:
        temporary.write_text("new")
    assert names(tmp_path) == ["file.txt"]
    assert path.read_text() == "old"


def test_a_block_that_writes_nothing_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(gd.GatedeployError, match="could not be written"), replacing_file(path):
        pass
    assert path.read_text() == "old"


def test_a_folder_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine").write_text("mine")
    with pytest.raises(gd.GatedeployError, match="could not be written"), replacing_file(tmp_path / "folder") as new:
        new.write_text("new")
    assert names(tmp_path) == ["folder", "mine"]


def test_a_place_below_a_file_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(gd.GatedeployError, match="could not be written"), replacing_file(tmp_path / "file" / "b"):
        raise AssertionError("the block ran")
    assert names(tmp_path) == ["file"]


def test_what_a_crash_left_behind_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    with replacing_file(path) as temporary:
        leftover = temporary
        temporary.write_text("one")
    leftover.write_text("left by a process of the same number")
    with replacing_file(path) as temporary:
        temporary.write_text("two")
    assert path.read_text() == "two"
    assert names(tmp_path) == ["file.txt"]


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("file/report", "/file: Not a directory; name another place"),
        ("file/deep/report", "/file: Not a directory; name another place"),
        ("folder", "a folder; name a file"),
        ("pipe", "a device or pipe"),
    ],
)
def test_a_place_that_cannot_be_written_is_told_beforehand(tmp_path: Path, place: str, reason: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(gd.InputError, match=f"{place}: could not be written: .*{reason}"):
        check_writable(tmp_path / place)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_told_beforehand(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(gd.InputError, match="Permission denied; name another place"):
        check_writable(tmp_path / "new" / "file")


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that not even root can write into")
def test_a_folder_that_nobody_can_write_into_is_told_beforehand() -> None:
    with pytest.raises(gd.InputError, match=r"/proc/new/file: could not be written: /proc: .*; name another place"):
        check_writable(Path("/proc/new/file"))


def test_asking_whether_a_file_can_be_written_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("old")
    check_writable(tmp_path / "old")
    check_writable(tmp_path / "deep" / "er" / "new")
    assert names(tmp_path) == ["old"]


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_files_have_the_mode_that_new_files_have(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        for made in (0o600, 0o666):
            with replacing_file(tmp_path / "file") as temporary:
                temporary.write_text("new")
                temporary.chmod(made)
            assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode
    finally:
        os.umask(before)


# ---------------------------------------------------------------- a folder


def test_a_folder_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "bundle"
    with replacing_folder(path, MARKER) as temporary:
        (temporary / "sub").mkdir()
        (temporary / "sub" / "weights").write_bytes(b"1")
        (temporary / MARKER).write_text("new")
        assert not path.exists()
    assert names(path.parent) == ["bundle", MARKER, "sub", "weights"]


def test_a_folder_of_ours_is_replaced_with_all_that_was_in_it(tmp_path: Path) -> None:
    path = folder_of(tmp_path / "bundle", "old")
    (path / "labels").write_text("old")
    with replacing_folder(path, MARKER) as temporary:
        (temporary / MARKER).write_text("new")
        assert (path / MARKER).read_text() == "old"
    assert (path / MARKER).read_text() == "new"
    assert names(tmp_path) == ["bundle", MARKER]


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    with replacing_folder(tmp_path / "bundle", MARKER) as temporary:
        (temporary / MARKER).write_text("new")
    assert names(tmp_path) == ["bundle", MARKER]


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.write_text("mine"),
        lambda path: (path.mkdir(), (path / "mine").write_text("mine")),
        lambda path: (path.mkdir(), (path / MARKER).mkdir()),
        lambda path: (path.mkdir(), (path / "sub").mkdir(), (path / "sub" / MARKER).write_text("")),
        lambda path: (
            path.with_name("real").mkdir(),
            path.symlink_to("real/mine"),
            (path.parent / "real/mine").write_text(""),
        ),
    ],
    ids=["a file", "a folder", "a folder called so", "the marker further down", "a link to a file"],
)
def test_what_is_not_ours_is_not_replaced(tmp_path: Path, make: Callable[[Path], object]) -> None:
    path = tmp_path / "bundle"
    make(path)
    before = names(tmp_path)
    message = "bundle: exists and was not written by gatedeploy .no manifest.json in it.; choose another folder"
    with pytest.raises(gd.InputError, match=message), replacing_folder(path, MARKER):
        raise AssertionError("the block ran")
    assert names(tmp_path) == before


def test_errors_name_the_folder_that_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "bundle"

    def write(error: BaseException) -> None:
        with replacing_folder(path, MARKER) as folder, replacing_file(folder / "model.onnx") as file:
            file.write_text(f"{file}")
            error.args = error.args or (f"{folder / 'README.md'} is wrong",)
            raise error

    with pytest.raises(
        gd.GatedeployError, match=rf"^{re.escape(str(path))}/model.onnx: could not be written: No space"
    ):
        write(FULL)
    with pytest.raises(gd.CheckError, match=rf"^{re.escape(str(path))}/README.md is wrong$"):
        write(gd.CheckError())
    assert names(tmp_path) == []


def test_the_current_folder_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    message = "is replaced as a whole, which the current one cannot be; name another"
    with pytest.raises(gd.InputError, match=message), replacing_folder(Path(), MARKER):
        raise AssertionError("the block ran")


@interrupted
@pytest.mark.parametrize("before", [True, False])
def test_an_interrupted_folder_is_as_it_was(
    tmp_path: Path, raised: BaseException, seen: type[BaseException], before: bool
) -> None:
    path = tmp_path / "bundle"
    if before:
        folder_of(path, "old")
    with pytest.raises(seen), replacing_folder(path, MARKER) as temporary:
        write_half(temporary / "sub" / "file", raised)
    assert names(tmp_path) == (["bundle", MARKER] if before else [])
    assert not before or (path / MARKER).read_text() == "old"


@pytest.mark.parametrize("failing", [1, 2])
@pytest.mark.parametrize("error", [FULL, KeyboardInterrupt()], ids=["full", "interrupt"])
def test_a_failure_between_the_two_renamings_brings_the_old_folder_back(
    tmp_path: Path, failing: int, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder_of(tmp_path / "bundle", "old")
    rename, calls = Path.rename, []

    def fail(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == failing:
            raise error
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises((gd.GatedeployError, KeyboardInterrupt)), replacing_folder(path, MARKER) as temporary:
        (temporary / MARKER).write_text("new")
    assert (path / MARKER).read_text() == "old"
    assert names(tmp_path) == ["bundle", MARKER]


def test_a_folder_that_a_crash_left_behind_is_no_obstacle_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    with replacing_folder(path, MARKER) as temporary:
        leftover = temporary
        (temporary / MARKER).write_text("one")
    folder_of(leftover, "left by a process of the same number")
    for _ in range(2):
        try:
            with replacing_folder(path, MARKER) as temporary:
                (temporary / MARKER).write_text("two")
        except gd.GatedeployError:
            continue
    assert (path / MARKER).read_text() == "two"
    assert names(tmp_path) == ["bundle", MARKER]


def test_the_hash_of_a_file(tmp_path: Path) -> None:
    for content in (b"", b"a", bytes(range(256)) * 8192):
        (tmp_path / "file").write_bytes(content)
        assert sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_waits_until_the_block_is_done(number: signal.Signals) -> None:
    done = []

    def told(*_: object) -> None:
        raise InterruptedError

    def interrupted_twice() -> None:
        with held_back():
            signal.raise_signal(number)
            signal.raise_signal(number)
            done.append(1)

    before = signal.signal(number, told)
    try:
        with pytest.raises(InterruptedError):
            interrupted_twice()
        assert signal.getsignal(number) is told
    finally:
        signal.signal(number, before)
    assert done == [1]


def test_an_error_in_the_block_is_told_though_nobody_interrupts() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ValueError, match="wrong"), held_back():
        raise ValueError("wrong")
    assert signal.getsignal(signal.SIGINT) is before
