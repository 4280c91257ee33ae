"""Common corruptions: against plain loops and laws, and what is published of them."""

import math

import numpy as np
import pytest
from PIL import Image

from cnn_jax.augment import corruptions
from cnn_jax.augment.corruptions import (
    CORRUPTIONS,
    LARGE,
    SEVERITIES,
    SMALL,
    blown,
    corrupt,
    disk,
    enlarged,
    plasma,
)
from cnn_jax.errors import DataError


def pictures(n, side, channels=3, seed=0):
    """Smooth ones, as photographs are."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)
    found = np.stack([Image.fromarray(x).resize((side, side), Image.BICUBIC) for x in coarse])
    return found[..., :channels]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_each_does_its_damage_and_repeats(corruption, channels):
    images = pictures(6, 32, channels)
    kept = images.copy()
    before, found = images.astype(float), []
    for severity in SEVERITIES:
        changed = corrupt(images, corruption, severity, seed=3)
        assert changed.shape == images.shape and changed.dtype == np.uint8
        np.testing.assert_array_equal(changed, corrupt(images, corruption, severity, seed=3))
        # What is drawn for an image does not hang on the others.
        np.testing.assert_array_equal(
            changed[:2], corrupt(images[:2], corruption, severity, seed=3)
        )
        found.append(np.abs(changed.astype(float) - before).mean())
    np.testing.assert_array_equal(images, kept)
    assert min(found) > 0.01 and found[4] > 1
    # The published severities of these are of accuracy, and not of pixels.
    if corruption not in ("glass_blur", "elastic", "snow", "frost", "pixelate"):
        assert (np.diff(found) > -0.3).all() and found[4] > found[0]
    random = "noise" in corruption or corruption in ("snow", "frost", "fog", "elastic")
    other = corrupt(images, corruption, 3, seed=4)
    assert (other != corrupt(images, corruption, 3, seed=3)).any() == (
        random or corruption in ("glass_blur", "motion_blur")
    )


def test_all_of_both_tables():
    assert len(CORRUPTIONS) == 15 and SMALL.keys() == LARGE.keys() == set(CORRUPTIONS)
    assert all(len(values) == 5 for table in (SMALL, LARGE) for values in table.values())
    for side, table in ((64, SMALL), (65, LARGE)):
        images = np.full((1, side, side, 3), 128, np.uint8)
        changed = corrupt(images, "brightness", 5)
        assert changed[0, 0, 0, 0] == int((128 / 255 + table["brightness"][4]) * 255 + 1e-3)


def test_noise_has_the_published_strength():
    grey = np.full((40, 32, 32, 3), 128, np.uint8)
    level = 128 / 255
    for severity, (deviation, photons, share) in enumerate(
        zip(SMALL["gaussian_noise"], SMALL["shot_noise"], SMALL["impulse_noise"], strict=True), 1
    ):
        noisy = corrupt(grey, "gaussian_noise", severity) / 255.0
        assert noisy.std() == pytest.approx(deviation, rel=0.02)
        shot = corrupt(grey, "shot_noise", severity) / 255.0
        assert shot.std() == pytest.approx(math.sqrt(level / photons), rel=0.02)
        hit = corrupt(grey, "impulse_noise", severity)
        assert set(np.unique(hit).tolist()) == {0, 128, 255}
        assert (hit != 128).mean() == pytest.approx(share, rel=0.06)
        assert (hit == 0).sum() == pytest.approx((hit == 255).sum(), rel=0.2)


def test_contrast_and_brightness_by_hand():
    images = pictures(3, 32).astype(float)
    scaled = images / 255
    means = scaled.mean(axis=(1, 2), keepdims=True)
    for severity, factor in enumerate(SMALL["contrast"], 1):
        expected = ((scaled - means) * factor + means).clip(0, 1) * 255
        found = corrupt(images.astype(np.uint8), "contrast", severity)
        assert np.abs(found - expected).max() <= 1.001
    import colorsys

    for severity, more in enumerate(SMALL["brightness"], 1):
        found = corrupt(images.astype(np.uint8), "brightness", severity)
        for y, x in ((0, 0), (3, 17), (30, 5)):
            hue, saturation, value = colorsys.rgb_to_hsv(*scaled[1, y, x])
            rgb = np.array(colorsys.hsv_to_rgb(hue, saturation, min(value + more, 1)))
            assert np.abs(found[1, y, x] - 255 * rgb).max() <= 1.001


def test_black_becomes_grey():
    found = corrupt(np.zeros((1, 16, 16, 3), np.uint8), "brightness", 5)
    assert (found == int(0.3 * 255)).all()


def test_glass_is_a_plain_loop_that_copies(monkeypatch):
    images = pictures(2, 16)
    monkeypatch.setitem(
        corruptions.SMALL, "glass_blur", ((0.0, 2, 2),) * 5
    )  # without the blur, so that pixels only move
    found = corrupt(images, "glass_blur", 1, seed=5)
    for n, image in enumerate(images):
        rng = np.random.default_rng([5, CORRUPTIONS.index("glass_blur"), n])
        steps = rng.integers(-2, 2, (2, 12, 12, 2))
        x = np.floor(image.astype(np.float32) / np.float32(255) * 255)
        for time in range(2):
            for i, h in enumerate(range(14, 2, -1)):
                for j, w in enumerate(range(14, 2, -1)):
                    dx, dy = steps[time, i, j]
                    x[h, w] = x[h + dy, w + dx]
        assert np.abs(found[n] - x).max() <= 1  # cut off to whole numbers twice


def test_a_blow_goes_one_way():
    images = np.zeros((2, 9, 9, 1), np.float32)
    images[:, 4, 4] = 1
    found = blown(images, 3, 1.5, np.array([0.0, 90.0]))
    weights = np.exp(-(np.arange(7) ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    # A pixel sees those to its right, then those below it.
    np.testing.assert_allclose(found[0, 4, 4::-1, 0], weights[:5], rtol=1e-5)
    np.testing.assert_allclose(found[1, 4::-1, 4, 0], weights[:5], rtol=1e-5)
    assert found[0, :4].sum() == 0 and found[0, 4, 5:].sum() == 0
    flat = blown(np.full((3, 9, 9, 1), 0.3, np.float32), 8, 4.0, np.array([-45.0, 10.0, 45.0]))
    np.testing.assert_allclose(flat, 0.3, rtol=1e-5)


def test_an_enlarged_line_is_a_line():
    """Linear interpolation keeps what is linear; the middle stays the middle."""
    rows = np.linspace(0, 1, 33)[np.newaxis, :, np.newaxis, np.newaxis]
    image = np.broadcast_to(rows, (1, 33, 33, 1)).astype(np.float64)
    for factor in (1.0, 1.1, 2.0):
        found = enlarged(image, factor)
        assert found.shape == image.shape
        np.testing.assert_allclose(np.diff(found[0, :, 5, 0], 2), 0, atol=1e-12)
        assert found[0, 16, 5, 0] == pytest.approx(0.5, abs=0.03)
        slope = found[0, 17, 0, 0] - found[0, 16, 0, 0]
        assert slope == pytest.approx(1 / 32 / factor, rel=0.05)


@pytest.mark.parametrize(("radius", "smoothing"), [(0.3, 0.4), (1.5, 0.1), (4, 0.5), (10, 0.5)])
def test_a_disk_is_round_and_as_large_as_said(radius, smoothing):
    kernel = disk(radius, smoothing)
    half = len(kernel) // 2
    np.testing.assert_allclose(kernel, kernel.T)
    np.testing.assert_allclose(kernel, kernel[::-1, ::-1])
    assert kernel.sum() == pytest.approx(1, abs=0.015)
    place = np.arange(-half, half + 1)
    inside = place[:, None] ** 2 + place**2 <= radius**2
    far = place[:, None] ** 2 + place**2 > (radius + 3) ** 2
    assert kernel[inside].min() > kernel[far].max(initial=0.0)


def test_a_plasma_fills_its_range_and_is_smoother_where_it_decays_faster():
    rough, smooth = (plasma(np.random.default_rng(0), 32, decay) for decay in (1.5, 3.0))
    for field in (rough, smooth):
        assert field.shape == (32, 32) and field.min() == 0 and field.max() == 1
    assert np.abs(np.diff(smooth, axis=0)).mean() < np.abs(np.diff(rough, axis=0)).mean()
    assert plasma(np.random.default_rng(0), 33, 2.0).shape == (64, 64)


def test_an_elastic_that_moves_nothing_is_nothing(monkeypatch):
    images = pictures(2, 32)
    monkeypatch.setitem(corruptions.SMALL, "elastic", ((0.0, 0.1, 0.0),) * 5)
    assert np.abs(corrupt(images, "elastic", 1).astype(int) - images).max() <= 1
    # Corners that all move alike move the picture.
    monkeypatch.setitem(corruptions.SMALL, "elastic", ((0.0, 0.1, 3 / 32),) * 5)

    class Alike:
        def uniform(self, low, high, size):
            return np.broadcast_to([high, low], size) if size == (3, 2) else np.zeros(size)

    monkeypatch.setattr(np.random, "default_rng", lambda _: Alike())
    found = corrupt(images, "elastic", 1)  # 3 to the right, 3 up
    assert np.abs(found[:, :-3, 3:].astype(int) - images[:, 3:, :-3]).max() <= 1


def test_pillow_does_what_it_does():
    images = pictures(2, 32)
    small = corrupt(images, "pixelate", 5)
    for image, found in zip(images, small, strict=True):
        box = Image.Resampling.BOX
        expected = Image.fromarray(image).resize((20, 20), box).resize((32, 32), box)
        np.testing.assert_array_equal(found, np.asarray(expected))


@pytest.mark.parametrize(
    ("images", "corruption", "severity", "message"),
    [
        (np.zeros((1, 16, 16, 3), np.uint8), "rain", 1, "no corruption 'rain': they are gaussian"),
        (np.zeros((1, 16, 16, 3), np.uint8), "snow", 6, "severities are 1 to 5, not 6"),
        (np.zeros((1, 16, 16, 4), np.uint8), "snow", 1, "1 or 3"),
        (np.zeros((1, 16, 16, 3), np.float32), "snow", 1, "not float32"),
        (np.zeros((1, 4, 16, 16, 3), np.uint8), "snow", 1, "1 or 3"),
        (np.zeros((1, 7, 16, 3), np.uint8), "snow", 1, "7×16 pixels: 8 or more"),
    ],
)
def test_what_cannot_be_corrupted(images, corruption, severity, message):
    with pytest.raises(DataError, match=message):
        corrupt(images, corruption, severity)


def test_oblong_pictures_and_none():
    oblong = pictures(2, 48)[:, :20]
    for corruption in CORRUPTIONS:
        assert corrupt(oblong, corruption, 5).shape == oblong.shape
        assert corrupt(oblong[:0], corruption, 5).shape == (0, 20, 48, 3)
