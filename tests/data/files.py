"""Write small files for the tests of data sets."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from torch import Tensor

from gatedeploy.data import load_data
from gatedeploy.data.layout import MEAN, STD
from gatedeploy.errors import InputError

Array = npt.NDArray[Any]


def png(path: Path, pixels: Any, dtype: Any = np.uint8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, dtype)).save(path)


def jpg(path: Path, pixels: Any) -> None:
    """Nearly as it is; what is of one colour stays exactly so, but for a 255th or two."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path, quality=100, subsampling=0)


def npy(path: Path, numbers: Any, dtype: Any = np.float32) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.asarray(numbers, dtype))


def text(path: Path, lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(lines, encoding="utf-8")


def colours(images: Tensor) -> Array:
    """(batch, height, width, 3), whole numbers from 0 to 255."""
    pixels = images.permute(0, 2, 3, 1).numpy() * STD + MEAN
    return np.asarray(np.rint(pixels * 255), int)


def refused(sentence: str, name: str, **options: Any) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(sentence)}$"):
        load_data(name, **options)
