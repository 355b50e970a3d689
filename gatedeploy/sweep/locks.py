"""Locks on files, which the operating system frees when their holder ends, however it ends.

They hold between processes of one machine, and between machines that share a folder on a file system with locks, as
NFS 4, Lustre and GPFS have them. The files stay: whoever removed one would let two hold the same lock.
"""

from __future__ import annotations

import errno
import fcntl
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO

from gatedeploy.errors import GatedeployError


class Lock:
    """A lock that is held, until the block ends that it opens: `with hold(path): …`."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def __enter__(self) -> Lock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def hold(path: Path) -> Lock:
    """Wait until nobody holds the lock `path`, and hold it."""
    lock = _locked(path, fcntl.LOCK_EX)
    assert lock is not None
    return lock


def try_to_hold(path: Path) -> Lock | None:
    """Hold the lock `path`; None where somebody does."""
    return _locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _locked(path: Path, how: int) -> Lock | None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")  # not handed on to programs that are started, which would keep the lock
        try:
            fcntl.flock(file, how)
        except BaseException:
            file.close()
            raise
    except OSError as error:
        if error.errno == errno.EWOULDBLOCK:
            return None
        raise GatedeployError(
            f"{path}: cannot be locked: {error.strerror}; choose an --out on a file system with locks, to which all "
            "workers may write"
        ) from error
    return Lock(file)


def do_once(jobs: Mapping[str, Callable[[], None]], folder: Path, say: Callable[[str], None]) -> None:
    """Do every job, none of them while another worker is at it; first those at which nobody is.

    Args:
        jobs: by name; what has been done already is for the job to find out.
        folder: where the locks lie.
        say: is told of what has to be waited for.
    """
    busy = []
    for name, job in jobs.items():
        lock = try_to_hold(folder / name)
        if lock is None:
            busy.append(name)
            continue
        with lock:
            job()
    for name in busy:
        say(f"{name}: another worker is at it; waiting")
        with hold(folder / name):
            jobs[name]()
