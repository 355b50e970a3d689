import numpy as np
import pytest

from gatedeploy.exporters.reference import Fingerprint, difference, fingerprint, noise, reference_picture
from gatedeploy.specs import InputSpec


def mixed_by_hand(number: int) -> int:
    """MurmurHash3's last step, on Python's integers."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        number = (number ^ (number >> shift)) * factor % 2**32
    return number ^ (number >> 16)


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_noise_is_the_same_everywhere(seed: int) -> None:
    expected = [mixed_by_hand((i + seed * 0x9E3779B9) % 2**32) for i in range(50)]
    assert noise(50, seed).tolist() == expected


def test_the_reference_picture_is_preprocessed_noise() -> None:
    spec = InputSpec(2, 3, 4, mean=(0.5, 0.25), std=(0.5, 2.0))
    picture = reference_picture(spec, 2, seed=3)
    assert picture.shape == (2, 2, 3, 4)
    assert picture.dtype == np.float32
    pixel = mixed_by_hand((12 + 3 * 0x9E3779B9) % 2**32) >> 24  # number 12 in memory order: picture 0, channel 1
    assert picture[0, 1, 0, 0] == np.float32((pixel / 255 - 0.25) / 2.0)


def test_pictures_are_made_of_squares() -> None:
    """Of edges 1, 4, 16, and 1 again; what a square is, is drawn where it begins."""
    spec = InputSpec(2, 40, 24)
    pictures = reference_picture(spec, 4, seed=5)
    for picture, edge in ((0, 1), (1, 4), (2, 16), (3, 1)):
        for channel, row, column in ((0, 0, 0), (0, 7, 9), (1, 21, 23), (1, 39, 17)):
            place = ((picture * 2 + channel) * 40 + row // edge * edge) * 24 + column // edge * edge
            pixel = mixed_by_hand((place + 5 * 0x9E3779B9) % 2**32) >> 24
            assert pictures[picture, channel, row, column] == np.float32(pixel / 255)
    assert np.array_equal(pictures[:1], reference_picture(spec, 1, seed=5))


def test_without_mean_and_deviation_pixels_are_only_scaled() -> None:
    picture = reference_picture(InputSpec(3, 64, 64), 1, seed=0)
    assert picture.min() == 0.0
    assert picture.max() == 1.0
    assert abs(picture.mean() - 0.5) < 0.01


def test_a_fingerprint_by_hand() -> None:
    found = fingerprint(np.array([[3.0, -4.0]], dtype=np.float32))
    signs = noise(2, 1) / 2.0**31 - 1
    assert found == Fingerprint((1, 2), -0.5, 3.5, 4.0, float((3 * signs[0] - 4 * signs[1]) / np.sqrt(2)), (3.0, -4.0))
    assert fingerprint(np.zeros((0, 2))).first == ()


def test_rounding_hardly_moves_a_fingerprint_and_changes_do() -> None:
    values = np.random.default_rng(0).standard_normal((1, 3, 64, 64))
    known = fingerprint(values)
    assert (
        difference(known, fingerprint(values * (1 + 1e-7 * np.random.default_rng(1).standard_normal(values.shape))))
        < 1e-6
    )
    swapped = values.copy()
    swapped[0, 0, 50, 3:5] = swapped[0, 0, 50, 4:2:-1]
    one_pixel = values.copy()
    one_pixel[0, 2, 40, 7] += 1
    for changed in (swapped, one_pixel, values[:, ::-1], np.flip(values, 3), values * 1.001, values + 0.001):
        assert difference(known, fingerprint(changed)) > 1e-4
    broken = values.copy()
    broken[0, 2, 63, 63] = np.nan
    assert not difference(known, fingerprint(broken)) <= 1e-4


def test_an_output_of_zeros_is_compared_as_it_is() -> None:
    zeros = fingerprint(np.zeros((1, 4)))
    assert difference(zeros, zeros) == 0
    assert difference(zeros, fingerprint(np.full((1, 4), 0.5))) == 0.5
