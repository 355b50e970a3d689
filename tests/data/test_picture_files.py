"""Pictures, masks, depth and normals read from files, and files that cannot be."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from gatedeploy.data.picture_files import nearest, read_depth, read_mask, read_normals, read_picture, resized
from gatedeploy.errors import InputError

Array = npt.NDArray[Any]


def noise(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def palette_png(path: Path, indices: Array) -> Path:
    image = Image.fromarray(indices.astype(np.uint8)).convert("P")
    image.putdata(indices.ravel().tolist())
    image.putpalette([200, 100, 50, 9, 9, 9, 77, 0, 255] + [0] * 750)
    image.save(path)
    return path


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_every_mode_becomes_red_green_blue(tmp_path: Path, mode: str, suffix: str) -> None:
    image = Image.fromarray(noise(10, 20, 3)).convert(mode)
    path = tmp_path / f"a{suffix}"
    image.save(path)
    pixels = read_picture(path)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, np.asarray(image.convert("RGB")))


def test_a_palette_with_transparency_reads_without_a_warning(tmp_path: Path) -> None:
    image = Image.fromarray(noise(8, 8, 3)).convert("P")
    image.save(tmp_path / "a.png", transparency=bytes(range(256)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_picture(tmp_path / "a.png")


def test_pictures_are_resized_with_antialiasing(tmp_path: Path) -> None:
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))
    Image.fromarray(stripes).save(tmp_path / "a.png")
    picture = read_picture(tmp_path / "a.png")
    assert picture.shape == (64, 64, 3)
    pixels = resized(picture, 8, 4)
    assert pixels.shape == (8, 4, 3)
    assert np.abs(pixels.astype(int) - 127).max() <= 4


def test_a_palette_mask_gives_its_indices(tmp_path: Path) -> None:
    indices = np.arange(12).reshape(3, 4) % 3
    np.testing.assert_array_equal(read_mask(palette_png(tmp_path / "m.png", indices)), indices)


def test_grey_and_16_bit_masks_give_their_values(tmp_path: Path) -> None:
    grey, deep = noise(5, 6), noise(5, 6).astype(np.uint16) * 200
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(deep).save(tmp_path / "deep.png")
    Image.fromarray(grey > 100).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "grey.png"), grey)
    np.testing.assert_array_equal(read_mask(tmp_path / "deep.png"), deep)
    np.testing.assert_array_equal(read_depth(tmp_path / "deep.png"), deep)
    np.testing.assert_array_equal(read_mask(tmp_path / "bits.png"), grey > 100)


def test_arrays_are_read_as_they_are(tmp_path: Path) -> None:
    depth, normals = noise(4, 5).astype(np.float32), noise(4, 5, 3).astype(np.float64)
    np.save(tmp_path / "d.npy", depth)
    np.save(tmp_path / "n.npy", normals)
    np.testing.assert_array_equal(read_depth(tmp_path / "d.npy"), depth)
    np.testing.assert_array_equal(read_normals(tmp_path / "n.npy"), normals)


@given(old=st.integers(1, 9), new=st.integers(1, 12))
def test_nearest_takes_the_pixel_under_each_new_middle(old: int, new: int) -> None:
    assert nearest(new, old).tolist() == [(2 * place + 1) * old // (2 * new) for place in range(new)]
    assert nearest(old, old).tolist() == list(range(old))


def save(path: Path, array: Array) -> None:
    Image.fromarray(array).save(path)


@pytest.mark.parametrize(
    ("read", "name", "write", "sentence"),
    [
        (
            read_mask,
            "a.png",
            lambda p: save(p, noise(4, 4, 3)),
            "of mode 'RGB'; a mask must be a palette or grey picture",
        ),
        (read_depth, "a.png", lambda p: save(p, noise(4, 4, 3)), "of mode 'RGB'; depth must be a grey PNG of 8 or 16"),
        (read_normals, "a.png", lambda p: save(p, noise(4, 4)), "of mode 'L'; normals must be an RGB PNG of 8 bits"),
        (
            read_depth,
            "a.npy",
            lambda p: np.save(p, noise(4, 4, 1)),
            "holds (4, 4, 1) of uint8; expected numbers (height, w",
        ),
        (read_depth, "a.npy", lambda p: np.save(p, np.array([["x"]])), "holds (1, 1) of <U1; expected numbers"),
        (read_normals, "a.npy", lambda p: np.save(p, noise(3, 4, 4)), "expected numbers (height, width, 3)"),
        (read_normals, "a.npy", lambda p: np.save(p, np.array([print])), "cannot be read as a .npy array ("),
        (read_normals, "a.npy", lambda p: p.write_bytes(b""), "cannot be read as a .npy array ("),
        (read_mask, "a.png", lambda p: p.write_text("text"), "cannot be read as a picture (neither PNG, JPEG, BMP"),
    ],
)
def test_other_content_is_refused(
    tmp_path: Path, read: Callable[[Path], Array], name: str, write: Callable[[Path], None], sentence: str
) -> None:
    write(tmp_path / name)
    with pytest.raises(InputError, match=re.escape(sentence)) as caught:
        read(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: ")


def test_an_archive_of_arrays_is_no_array(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", a=noise(2, 2))
    (tmp_path / "a.npz").rename(tmp_path / "a.npy")
    with pytest.raises(InputError, match="is an archive of arrays; expected one array"):
        read_depth(tmp_path / "a.npy")


def test_pictures_of_more_bits_are_refused(tmp_path: Path) -> None:
    Image.fromarray(noise(4, 4).astype(np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="its pixels are of mode 'I;16'; expected 8 bits a channel, grey or colour"):
        read_picture(tmp_path / "a.png")


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "a.png", noise(20, 20))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(InputError, match="has more than 200 pixels, Pillow's limit against decompression bombs"):
        read_picture(tmp_path / "a.png")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data(), name=st.sampled_from(["a.png", "a.jpg", "a.tif", "a.npy"]))
def test_damaged_files_are_read_or_refused(tmp_path: Path, data: st.DataObject, name: str) -> None:
    path = tmp_path / name
    if name == "a.npy":
        np.save(path, noise(6, 6))
    else:
        save(path, noise(6, 6))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    message = f"{path}: read"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, on what it passes over.
        try:
            read_depth(path) if name == "a.npy" else read_picture(path)
        except InputError as error:
            message = str(error)
    assert message.startswith(f"{path}: ")
