"""Who made a file that runs code.

Engines of TensorRT, packages of AOTInductor and programs of ExecuTorch are machine code: opening one runs it. A hash
shows that it is what was written, not who wrote it. So what this user exports here is remembered, by its SHA-256, in
the user's own folder, and everything else is opened only when the user says so.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from platformdirs import user_state_path

from gatedeploy.errors import InputError


def remember(sha256: str) -> None:
    """Note that this user built the file with this SHA-256; where nothing can be noted, nothing is."""
    with contextlib.suppress(OSError):
        folder = _folder()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / sha256).touch()


def check_trusted(path: Path, sha256: str, trust: bool) -> None:
    """Raise `InputError` unless this user built the file or trusts it.

    Args:
        path: the file.
        sha256: its hash, checked.
        trust: whether the user says that it is trusted; nothing but True says so.
    """
    if not isinstance(trust, bool):
        raise InputError(f"trust={trust!r}: expected True or False")
    if trust or (_folder() / sha256).is_file():
        return
    raise InputError(
        f"{path}: is a program, and it was not built by you on this machine: opening it runs its maker's code. If you "
        "trust who made it, say --trust (trust=True); else take the runtime onnxruntime, which runs none"
    )


def _folder() -> Path:
    return user_state_path("gatedeploy") / "built"
