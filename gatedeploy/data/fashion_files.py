"""Read Fashion-MNIST from a folder: one npz archive, or the four idx files it was published as."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gatedeploy.errors import InputError, located

SIDE = 28
"""Height and width of a picture."""

NPZ = "fashion_mnist.npz"

_MOST = 1_000_000
"""No file may claim more pictures; keeps a damaged or hostile header from asking for terabytes."""

_UINT8 = 0x08
"""The only type of numbers the idx files hold, third byte of their magic number."""

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Pictures:
    """One part of Fashion-MNIST: images (samples, 28, 28) uint8 and labels (samples,) uint8."""

    images: Pixels
    labels: Pixels


def read_fashion(root: Path) -> tuple[Pictures, Pictures]:
    """Read the training and the test part.

    Args:
        root: the npz archive (x_train, y_train, x_test, y_test), or a folder that holds it as `fashion_mnist.npz` or
            holds `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte` and
            `t10k-labels-idx1-ubyte`, each plain or as `.gz`.

    Raises:
        InputError: nothing of that kind is there, or a file is not what it should be.
    """
    if not root.exists():
        raise InputError(
            f"root {root}: no such file or folder; expected {NPZ}, or a folder with it or with the four "
            "idx files of Fashion-MNIST (train-images-idx3-ubyte.gz, …)"
        )
    archive = root if root.is_file() else root / NPZ
    if archive.is_file():
        with located(str(archive)):
            return _read_npz(archive)
    return _read_pair(root, "train"), _read_pair(root, "t10k")


def _read_npz(path: Path) -> tuple[Pictures, Pictures]:
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise InputError("holds a single array; expected the arrays x_train, y_train, x_test and y_test")
        with archive:
            missing = [name for name in ("x_train", "y_train", "x_test", "y_test") if name not in archive.files]
            if missing:
                raise InputError(f"has no array {missing[0]}; it holds {', '.join(archive.files) or 'nothing'}")
            parts = [(archive[f"x_{part}"], archive[f"y_{part}"]) for part in ("train", "test")]
    except InputError:
        raise
    except Exception as error:  # The readers of zip files and arrays raise whatever they stumble over.
        raise InputError(f"not a readable npz archive ({error}); fetch it again") from None
    train, test = (_checked(images, labels) for images, labels in parts)
    return train, test


def _read_pair(root: Path, part: str) -> Pictures:
    images = _read_idx(_find(root, f"{part}-images-idx3-ubyte"), axes=3)
    labels = _read_idx(_find(root, f"{part}-labels-idx1-ubyte"), axes=1)
    with located(f"{root}: {part}"):
        return _checked(images, labels)


def _find(root: Path, name: str) -> Path:
    for path in (root / name, root / f"{name}.gz"):
        if path.is_file():
            return path
    raise InputError(f"{root}: has neither {NPZ} nor {name} or {name}.gz; put Fashion-MNIST's files there")


def _read_idx(path: Path, axes: int) -> Pixels:
    """Read an idx file of 8-bit numbers: magic 0, 0, 8, axes; one big-endian 32-bit length per axis; the numbers."""
    start = 4 + 4 * axes
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            head = file.read(start)
            magic, wanted = head[:4], bytes((0, 0, _UINT8, axes))
            if magic != wanted:
                raise InputError(
                    f"{path}: not an idx file of {axes} axes: expected it to begin with {wanted.hex()}, "
                    f"got {magic.hex()}"
                )
            if len(head) < start:
                raise InputError(
                    f"{path}: cut short: expected a head of {start} bytes, got {len(head)}; fetch it again"
                )
            shape = np.frombuffer(head, ">u4", offset=4).astype(int).tolist()
            if shape[0] > _MOST or shape[1:] != [SIDE, SIDE][: axes - 1]:
                raise InputError(
                    f"{path}: holds an array {shape}; expected up to {_MOST} of {[SIDE, SIDE][: axes - 1]}"
                )
            expected = int(np.prod(shape))
            body = file.read(expected + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({error}); fetch it again") from None
    if len(body) != expected:
        got = f"{start + len(body)}" if len(body) < expected else "more"
        raise InputError(f"{path}: expected {start + expected} bytes for an array {shape}, got {got}; fetch it again")
    return np.asarray(np.frombuffer(bytearray(body), np.uint8).reshape(shape))


def _checked(images: npt.NDArray[np.generic], labels: npt.NDArray[np.generic]) -> Pictures:
    if images.dtype != np.uint8 or images.shape[1:] != (SIDE, SIDE) or not len(images):
        raise InputError(
            f"expected pictures (n, {SIDE}, {SIDE}) of uint8, at least one, got {images.shape} of {images.dtype}"
        )
    if labels.dtype != np.uint8 or labels.shape != (len(images),):
        raise InputError(
            f"expected {len(images)} labels of uint8, one per picture, got {labels.shape} of {labels.dtype}"
        )
    return Pictures(np.asarray(images, np.uint8), np.asarray(labels, np.uint8))
