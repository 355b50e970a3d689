"""Writing so that what stands under a final name is complete."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import signal
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gatedeploy.errors import GatedeployError, InputError, check_type

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def as_path(path: Path | str) -> Path:
    """A file or folder that a user names; `InputError` where that is neither a path nor a text."""
    check_type("the path", path, str, Path)
    return Path(path)


@contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path` to write to; it becomes `path` when the block ends without an error.

    Raises:
        InputError: `path` is a folder, or something else that is no file.
        GatedeployError: the file system refuses: no space, no permission. Nothing is left behind then.
    """
    _check_replaceable(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with _explained(path, temporary):
            path.parent.mkdir(parents=True, exist_ok=True)
            mode = _usual_mode(temporary)
            yield temporary
            if stat.S_IMODE(temporary.stat().st_mode) != mode:  # some libraries write for their user alone
                temporary.chmod(mode)
            _to_disk(temporary)
            temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a file of text, complete or not at all; raises what `replacing_file` raises."""
    with replacing_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def held_back() -> Iterator[None]:
    """Let Ctrl-C and the wish to end (SIGTERM) wait until the block is done.

    For what would have to be done anew: some libraries answer an interruption in their midst with another error.
    """
    if threading.current_thread() is not threading.main_thread():  # which alone is told of signals
        yield
        return
    came: list[int] = []
    usual = {number: signal.getsignal(number) for number in (int(signal.SIGINT), int(signal.SIGTERM))}
    for number in usual:
        signal.signal(number, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for number, handler in usual.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        for number in came[:1]:
            signal.raise_signal(number)


@contextmanager
def replacing_folder(path: Path, marker: str) -> Iterator[Path]:
    """The same for a folder. One that is already there is replaced only if it holds the file `marker`.

    Raises:
        InputError: `path` exists and is something else, or has no name.
        GatedeployError: the file system refuses.
    """
    if not path.name:
        raise InputError(f"{path}: the folder is replaced as a whole, which the current one cannot be; name another")
    if path.exists() and not (path / marker).is_file() and not (path.is_dir() and not any(path.iterdir())):
        raise InputError(f"{path}: exists and was not written by gatedeploy (no {marker} in it); choose another folder")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    replaced = path.with_name(f".{path.name}.{os.getpid()}.old")
    try:
        with _explained(path, temporary):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.mkdir()
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_file():
                    _to_disk(file)
            if path.exists():
                path.rename(replaced)
            temporary.rename(path)
    finally:
        if replaced.exists() and not path.exists():
            replaced.rename(path)
        for leftover in (temporary, replaced):
            shutil.rmtree(leftover, ignore_errors=True)


def check_writable(path: Path) -> None:
    """Tell before any work is done whether a file can be written at `path`; changes nothing.

    Raises:
        InputError: it cannot, as far as can be known now.
    """
    _check_replaceable(path)
    folder = next(each for each in path.absolute().parents if each.exists())
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"{path}: could not be written: {folder}: {reason}; name another place") from error


def check_kept(path: Path, read: Path | None) -> None:
    """Raise `InputError` if writing `path` would replace the file `read`, which is used; None is none."""
    if read is not None and path.exists() and read.exists() and path.samefile(read):
        raise InputError(f"{path}: would replace the file that is read; name another place")


def sha256(path: Path) -> str:
    """The hash of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _check_replaceable(path: Path) -> None:
    if path.is_dir():
        raise InputError(f"{path}: could not be written: a folder; name a file")
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: could not be written: a device or pipe, which would be replaced; name a file")


def _usual_mode(file: Path) -> int:
    """The mode of new files here, seen by making one: the umask can only be read by changing it for all threads."""
    file.unlink(missing_ok=True)
    file.touch()
    mode = stat.S_IMODE(file.stat().st_mode)
    file.unlink()
    return mode


def _to_disk(file: Path) -> None:
    with file.open("rb") as handle:
        os.fsync(handle.fileno())


@contextmanager
def _explained(path: Path, temporary: Path) -> Iterator[None]:
    """Tell of the file system's errors, and call `temporary` in all errors by the name that was asked for."""
    try:
        yield
    except GatedeployError as error:
        error.args = (str(error).replace(str(temporary), str(path)),)
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        remedy = "make room" if error.errno in FULL else "write elsewhere"
        raise GatedeployError(
            f"{path}: could not be written: {reason}; nothing was changed under this name. Next: {remedy}"
        ) from error
