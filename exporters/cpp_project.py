"""Hand out the C++ library: a CMake project that loads bundles and runs them."""

from __future__ import annotations

import shutil
from pathlib import Path

from gatedeploy.errors import InputError
from gatedeploy.files import replacing_folder

SOURCES = Path(__file__).resolve().parent / "cpp"
PARTS = ("CMakeLists.txt", "README.md", "cmake", "include", "src", "examples")
"""What a user needs of it; its tests stay here."""


def check_cpp_place(out: Path) -> None:
    """Raise `InputError` unless the folder is free: a project may hold changes of the user's, so none is replaced."""
    if out.is_symlink() or (out.exists() and not (out.is_dir() and not any(out.iterdir()))):
        raise InputError(f"{out}: exists; the C++ project is written to a folder of its own: choose another")


def write_cpp_project(out: Path) -> Path:
    """Write the project; it is complete when it appears.

    Args:
        out: its folder.

    Returns:
        The same.

    Raises:
        InputError: the folder is not free.
        GatedeployError: the disk refuses.
    """
    check_cpp_place(out)
    with replacing_folder(out, PARTS[0]) as folder:
        for name in PARTS:
            source = SOURCES / name
            if source.is_dir():
                shutil.copytree(source, folder / name)
            else:
                shutil.copyfile(source, folder / name)
    return out
