"""Decode pictures, masks, depth and normals from files; what cannot be used is refused in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, UnidentifiedImageError
from torch.nn.functional import interpolate

from gatedeploy.errors import InputError, UnreadableError

Array = npt.NDArray[Any]

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
MASKS = (".png",)
MAPS = (".png", ".npy")

_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "PPM")
_PICTURE_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
_GREY_MODES = ("L", "I;16", "I;16B", "I")


def read_picture(path: Path) -> npt.NDArray[np.uint8]:
    """Decode a picture, as its pixels are stored, to red, green and blue: (height, width, 3) uint8.

    A .npy file may hold numbers from 0 to 1 too; they are rounded to 255ths.

    Raises:
        InputError: the file is no picture of 8 bits a channel, or is damaged, or larger than Pillow's limit.
    """
    if path.suffix.lower() == ".npy":
        return _in_255ths(path, read_array(path, "(height, width, 3)", lambda shape: len(shape) == 3 and shape[2] == 3))
    image = _decode(path)
    if image.mode not in _PICTURE_MODES:
        raise InputError(
            f"{path}: its pixels are of mode {image.mode!r}; expected 8 bits a channel, grey or colour. "
            "Convert it first"
        )
    if "transparency" in image.info:
        image = image.convert("RGBA")
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _in_255ths(path: Path, numbers: Array) -> npt.NDArray[np.uint8]:
    if numbers.dtype == np.uint8:
        return np.asarray(numbers)
    if not (numbers.min() >= 0 and numbers.max() <= 1):  # NaN is neither
        raise InputError(
            f"{path}: holds numbers from {numbers.min():g} to {numbers.max():g}; a picture of {numbers.dtype} must lie "
            "between 0 and 1"
        )
    return np.asarray(np.rint(numbers * 255), np.uint8)


def resized(picture: npt.NDArray[np.uint8], height: int, width: int) -> npt.NDArray[np.uint8]:
    """Resize (from_height, from_width, 3) bilinearly with antialiasing, as Pillow does but for a 255th or two."""
    if picture.shape[:2] == (height, width):
        return picture
    # PyTorch takes no array that cannot be written to, though it does not write. Its resizing is quicker than Pillow's.
    pixels = torch.from_numpy(np.require(picture, requirements="W")).permute(2, 0, 1)[None]
    new = interpolate(pixels, (height, width), mode="bilinear", antialias=True)
    return np.asarray(new[0].permute(1, 2, 0).numpy())


def read_mask(path: Path) -> Array:
    """Decode a mask to whole numbers (height, width): of a palette PNG the index, not the colour; else the grey value.

    Raises:
        InputError: the file is no grey or palette picture, or is damaged.
    """
    image = _decode(path)
    if image.mode not in ("1", "P", *_GREY_MODES):
        raise InputError(
            f"{path}: is a picture of mode {image.mode!r}; a mask must be a palette or grey picture, one number per "
            "pixel. Convert its colours to numbers first"
        )
    return np.asarray(image).astype(np.uint8) if image.mode == "1" else np.asarray(image)


def read_depth(path: Path) -> Array:
    """Read an 8- or 16-bit grey PNG or a .npy file as numbers (height, width), in the file's own unit.

    Raises:
        InputError: the file holds something else, or is damaged.
    """
    if path.suffix.lower() == ".npy":
        return read_array(path, "(height, width)", lambda shape: len(shape) == 2)
    image = _decode(path)
    if image.mode not in _GREY_MODES:
        raise InputError(
            f"{path}: is a picture of mode {image.mode!r}; depth must be a grey PNG of 8 or 16 bits, or .npy"
        )
    return np.asarray(image)


def read_normals(path: Path) -> Array:
    """Read an RGB PNG (uint8) or a .npy file as vectors (height, width, 3), still in the file's own code.

    Raises:
        InputError: the file holds something else, or is damaged.
    """
    if path.suffix.lower() == ".npy":
        return read_array(path, "(height, width, 3)", lambda shape: len(shape) == 3 and shape[2] == 3)
    image = _decode(path)
    if image.mode not in ("RGB", "RGBA"):
        raise InputError(f"{path}: is a picture of mode {image.mode!r}; normals must be an RGB PNG of 8 bits, or .npy")
    return np.asarray(image)[:, :, :3]


def nearest(length: int, old: int) -> npt.NDArray[np.intp]:
    """Which of `old` pixels in a row lies under the middle of each of `length` that are to take their place."""
    return np.asarray((np.arange(length) + 0.5) * old / length, np.intp)


def _decode(path: Path) -> Image.Image:
    try:
        with Image.open(path, formats=_FORMATS) as image:
            image.load()
    except Image.DecompressionBombError:
        raise InputError(
            f"{path}: has more than {2 * (Image.MAX_IMAGE_PIXELS or 0)} pixels, Pillow's limit against decompression "
            "bombs; make it smaller"
        ) from None
    except UnidentifiedImageError:
        raise UnreadableError(
            f"{path}: cannot be read as a picture (neither {', '.join(_FORMATS)}); replace it or take it away"
        ) from None
    except Exception as error:  # Pillow's decoders raise whatever they stumble over.
        raise UnreadableError(f"{path}: cannot be read as a picture ({error}); replace it or take it away") from None
    return image


def read_array(path: Path, expected: str, fits: Callable[[tuple[int, ...]], bool]) -> Array:
    """An array of numbers, read as they are needed.

    Args:
        path: a .npy file.
        expected: its shape in words.
        fits: whether that is a shape it may have.

    Raises:
        InputError: the file holds something else, or is damaged.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # So do numpy's.
        raise UnreadableError(f"{path}: cannot be read as a .npy array ({error}); replace it or take it away") from None
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path}: is an archive of arrays; expected one array {expected}")
    if not fits(array.shape) or array.dtype.kind not in "uif":
        raise InputError(f"{path}: holds {array.shape} of {array.dtype}; expected numbers {expected}")
    return array
