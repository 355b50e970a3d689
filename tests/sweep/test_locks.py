from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gatedeploy.errors import GatedeployError
from gatedeploy.sweep.locks import do_once, hold, try_to_hold

HOLDS = "import fcntl, sys, time; f = open(sys.argv[1], 'ab'); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); "
HOLDS += "time.sleep(60)"


@contextmanager
def held_by_another(path: Path) -> Iterator[subprocess.Popen[str]]:
    """By another process, which sleeps until it is killed."""
    words = [sys.executable, "-c", HOLDS, str(path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process
        finally:
            process.kill()


def test_a_lock_is_held_by_one_until_it_ends_however_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with held_by_another(path) as process:
        assert try_to_hold(path) is None
        process.kill()
        with hold(path):  # would wait for ever if a dead process could hold it
            assert try_to_hold(path) is None
    lock = try_to_hold(path)
    assert lock is not None


def test_jobs_at_which_another_is_wait_until_the_end(tmp_path: Path) -> None:
    done: list[str] = []
    with held_by_another(tmp_path / "first") as process:

        def say(line: str) -> None:
            done.append(line)
            process.kill()

        jobs = {name: (lambda name=name: done.append(name)) for name in ("first", "second", "third")}
        do_once(jobs, tmp_path, say)
    assert done == ["second", "third", "first: another worker is at it; waiting", "first"]


def test_a_folder_that_cannot_be_locked(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(GatedeployError, match=r"file/lock: cannot be locked: .*; choose an --out on a file"):
        hold(tmp_path / "file" / "lock")
