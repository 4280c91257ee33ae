"""Pictures survive the way through PNG, and numbers have one look each."""

import base64
import io
import math

import numpy as np
import pytest
from PIL import Image

from cnn_jax.evaluation import Estimate
from cnn_jax.report import wording
from cnn_jax.report.pictures import LONGEST_SIDE, data_uri, filter_grid, thumbnail, viewable

RNG = np.random.default_rng(1)


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3), (5, 7, 4), (1, 1)])
def test_png_round_trip(shape):
    pixels = RNG.integers(0, 256, shape, dtype=np.uint8)
    head, _, body = data_uri(pixels).partition(",")
    assert head == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(body))) as picture:
        assert picture.format == "PNG"
        np.testing.assert_array_equal(np.asarray(picture), pixels)


def test_small_images_are_shown_pixel_for_pixel():
    color = RNG.integers(0, 256, (4, 6, 3), dtype=np.uint8)
    np.testing.assert_array_equal(thumbnail(color), color)
    np.testing.assert_array_equal(thumbnail(color[..., :1]), color[..., 0])
    two = np.array([[[10, 21]]], np.uint8)
    assert thumbnail(two).tolist() == [[16]]


def test_large_images_keep_their_proportions():
    assert thumbnail(np.zeros((300, 600, 3), np.uint8)).shape == (
        LONGEST_SIDE // 2,
        LONGEST_SIDE,
        3,
    )


def test_of_a_volume_the_middle_slice_is_shown_and_floats_become_bytes():
    volume = np.zeros((5, 4, 4, 1), np.float32)
    volume[2], volume[3] = 0.5, 2
    assert (viewable(volume) == 128).all() and viewable(volume).shape == (4, 4, 1)
    assert viewable(volume[3]).max() == 255
    image = RNG.integers(0, 256, (4, 6, 3), dtype=np.uint8)
    assert viewable(image) is image


def test_filters_are_scaled_about_zero_and_parted_by_a_gap():
    filters = np.zeros((2, 2, 1, 2))
    filters[0, 0, 0, 0], filters[1, 1, 0, 0] = -3.0, 1.5
    grid = filter_grid(filters)
    assert grid.shape == (2, 5, 4)
    assert grid[0, 0].tolist() == [0, 0, 0, 255]
    assert grid[1, 1, 0] == round(255 * 0.75)
    assert grid[0, 1, 0] == grid[0, 3, 0] == 128
    assert (grid[:, 2, 3] == 0).all()


def test_filters_of_many_channels_show_their_norm():
    filters = np.zeros((1, 2, 5, 1))
    filters[0, 0, :2, 0], filters[0, 1, 0, 0] = (3, 4), 2.5
    assert filter_grid(filters)[0, :, 0].tolist() == [255, 128]


def test_filters_of_three_channels_are_coloured_and_only_the_first_ones_shown():
    filters = RNG.normal(size=(3, 3, 3, 100)).astype(np.float32)
    grid = filter_grid(filters)
    opaque = int((grid[..., 3] > 0).sum())
    assert opaque == 64 * 9
    expected = 0.5 + filters[..., 0] / (2 * np.abs(filters[..., 0]).max())
    np.testing.assert_allclose(grid[:3, :3, :3] / 255, expected, atol=0.5 / 255 + 1e-6)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "—"),
        (math.nan, "—"),
        (math.inf, "∞"),
        (0.0, "0"),
        (-2.5, "−2.50"),
        (0.03124, "0.0312"),
        (5342.0, "5\u202f342"),
        (1.5e-7, "1.50·10⁻⁷"),
        (-3e9, "−3.00·10⁹"),
    ],
)
def test_numbers(value, expected):
    assert wording.number(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.25, "0.25"), (0.0, "0"), (6000, "6\u202f000"), (7.5e-4, "7.5·10⁻⁴"), (1e6, "10⁶")],
)
def test_ticks(value, expected):
    assert wording.tick(value) == expected


def test_estimates():
    share = Estimate(0.98056, 0.96, 0.9914, 360, "Wilson", percent=True)
    loss = Estimate(0.0712, -0.01, 0.2, 360, "bootstrap", covers="both", n_seeds=5, unit="group")
    assert wording.value(share) == "98.06\u00a0%"
    assert wording.interval(share) == "96.0 to 99.1"
    assert wording.interval(loss) == "−0.0100 to 0.2000"
    assert wording.difference(share) == "+98.06 points"
    assert wording.difference(Estimate(-0.5, -1, 0, 9, "")) == "−0.5000"
    worded = wording.origin(loss).replace("\u00a0", " ")
    expected = "n = 360, 5 seeds, 95 % over test sets and seeds, groups resampled: bootstrap"
    assert worded == expected
    none = wording.origin(Estimate(0.5, math.nan, math.nan, 3, "no interval: a single group"))
    assert none == "n\u00a0=\u00a03: no interval: a single group"
