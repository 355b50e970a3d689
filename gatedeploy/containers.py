"""What a file that shall hold a network is, told by its first bytes and its list of entries; nothing is unpickled."""

from __future__ import annotations

import codecs
import zipfile
from pathlib import Path
from typing import Literal

from gatedeploy.errors import InputError

Container = Literal["torch", "safetensors"]

MAX_HEADER = 100_000_000
"""Bytes of a safetensors header, by its own rules; the length of one stands where a text has letters."""

KNOWN = {b"\x89PNG": "a PNG picture", b"\xff\xd8\xff": "a JPEG picture", b"GIF8": "a GIF picture", b"%PDF": "a PDF"}


def container(path: Path, expected: str) -> Container:
    """Which of the two containers of networks a file is.

    Args:
        path: the file.
        expected: what was asked for and where it comes from, for the message.

    Raises:
        InputError: it does not exist or is neither; the message says what it is, as far as can be told.
    """
    if path.is_dir():
        raise InputError("a folder; expected a file")
    if not path.is_file():
        raise InputError("no such file")
    with path.open("rb") as file:
        start = file.read(256)
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= MAX_HEADER:
        return "safetensors"
    if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):  # a pickle, as old PyTorch wrote
        return "torch"
    if not start.startswith(b"PK\x03\x04"):
        raise InputError(f"{_described(start)}; expected {expected}")
    if not zipfile.is_zipfile(path):
        what = "PyTorch file" if b"/data.pkl" in start else "zip archive"
        raise InputError(f"a truncated {what}: its end is missing; copy it again, or train it again")
    if not _holds_pickle(path):
        raise InputError(f"a zip archive, but no PyTorch file; expected {expected}")
    return "torch"


def _holds_pickle(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("data.pkl") for name in archive.namelist())
    except Exception:  # whatever damaged bytes lead it to; PyTorch will find the damage
        return True


def _described(start: bytes) -> str:
    if not start:
        return "an empty file"
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(start)  # the last letter may be cut
    except UnicodeDecodeError:
        text = "\0"
    if all(letter.isprintable() or letter.isspace() for letter in text):
        return "a text file"
    return next((name for magic, name in KNOWN.items() if start.startswith(magic)), "a file of another kind")
