"""Colour, blur, noise and erasing: formulas from outside, range and distribution."""

import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance
from scipy import ndimage, stats
from small import quick

from cnn_jax.augment import blur, colour, erase, example_keys, noise
from cnn_jax.augment.blurring import gaussian

KEY = jax.random.key(5)


def photos(n=3, height=10, width=7):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (n, height, width, 3), np.uint8)


def unit(pixels):
    return jnp.asarray(pixels, jnp.float32) / 255


@pytest.mark.parametrize(
    ("change", "enhance"),
    [
        (colour.brightness, ImageEnhance.Brightness),
        (colour.contrast, ImageEnhance.Contrast),
        (colour.saturation, ImageEnhance.Color),
    ],
)
@pytest.mark.parametrize("factor", [0.3, 1.0, 1.7])
def test_changes_are_pillows_to_within_its_rounding(change, enhance, factor):
    pixels = photos()
    ours = change(unit(pixels), jnp.full(3, factor, jnp.float32))
    theirs = [np.asarray(enhance(Image.fromarray(p)).enhance(factor)) for p in pixels]
    # Pillow rounds grey to whole bytes before it blends, and cuts the result off.
    np.testing.assert_allclose(255 * np.asarray(ours), np.stack(theirs), atol=1.6)


def test_contrast_keeps_the_mean_and_works_on_one_channel_and_on_volumes():
    for shape in ((2, 6, 5, 1), (2, 4, 6, 5, 1)):
        image = 0.4 + 0.2 * jax.random.uniform(KEY, shape)
        changed = colour.contrast(image, jnp.array([0.5, 1.5], jnp.float32))
        axes = tuple(range(1, len(shape)))
        np.testing.assert_allclose(changed.mean(axes), image.mean(axes), rtol=1e-5)
        np.testing.assert_allclose(
            changed.std(axes) / image.std(axes), np.array([0.5, 1.5]), rtol=1e-4
        )


@pytest.mark.parametrize("turns", [0.0, 0.1, -0.3, 0.5])
def test_hue_is_that_of_colorsys(turns):
    pixels = photos()
    pixels[0, 0] = [
        [0, 0, 0],
        [255, 255, 255],
        [7, 7, 7],
        [255, 0, 0],
        [0, 255, 0],
        [0, 0, 9],
        [9] * 3,
    ]
    image = np.asarray(unit(pixels), np.float64)

    def turned(rgb):
        h, s, v = colorsys.rgb_to_hsv(*rgb)
        return colorsys.hsv_to_rgb((h + turns) % 1, s, v)

    expected = np.apply_along_axis(turned, -1, image)
    ours = colour.hue(unit(pixels), jnp.full(3, turns, jnp.float32))
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_blur_is_scipys_gaussian_and_none_at_zero():
    image = unit(photos(3, 12, 11))
    sigma = np.array([0.0, 0.6, 1.5], np.float32)
    ours = gaussian(image, jnp.asarray(sigma), 5)
    np.testing.assert_array_equal(ours[0], image[0])
    for i in (1, 2):
        expected = ndimage.gaussian_filter(
            np.asarray(image[i], np.float64), (sigma[i],) * 2, axes=(0, 1), radius=5, mode="mirror"
        )
        np.testing.assert_allclose(ours[i], expected, atol=1e-6)
    volume = jnp.stack([image, image[::-1]], axis=1)
    blurred = gaussian(volume, jnp.asarray(sigma), 5)
    np.testing.assert_allclose(blurred[:, 0], ours, atol=1e-6)


def test_blur_and_noise_draw_their_strength_for_each_image():
    image = jnp.full((300, 24, 24, 1), 0.5, jnp.float32)
    noisy = quick(lambda k: noise(k, {"image": image}, 0.1))(example_keys(KEY, 300))["image"]
    sigma = np.asarray(noisy - 0.5).std(axis=(1, 2, 3))
    assert stats.kstest(sigma, stats.uniform(0, 0.1).cdf).pvalue > 1e-3
    normal = (np.asarray(noisy[..., 0]) - 0.5)[sigma > 0.03] / sigma[sigma > 0.03, None, None]
    assert stats.kstest(normal.ravel()[::7], stats.norm.cdf).pvalue > 1e-3
    point = jnp.zeros((300, 15, 15, 1), jnp.float32).at[:, 7, 7].set(1)
    peak = quick(lambda k: blur(k, {"image": point}, 1.0))(example_keys(KEY, 300))["image"]
    assert len(np.unique(np.asarray(peak[:, 7, 7, 0]).round(4))) > 200


def test_erasing_fills_a_rectangle_of_the_right_size_in_the_right_number_of_images():
    image = jnp.full((800, 20, 25, 3), 0.5, jnp.float32)  # 0.5 is no k / 255
    erased = quick(lambda k: erase(k, {"image": image}, 0.3))(example_keys(KEY, 800))["image"]
    holes = np.asarray(erased != 0.5).all(axis=-1)
    chosen = holes.any(axis=(1, 2))
    assert stats.binomtest(int(chosen.sum()), 800, 0.3).pvalue > 1e-3
    for hole in holes[chosen]:
        rows, columns = np.flatnonzero(hole.any(axis=1)), np.flatnonzero(hole.any(axis=0))
        assert hole[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        assert 0.01 < hole.sum() / 500 < 0.45
    values = np.asarray(erased)[holes] * 255
    np.testing.assert_allclose(values, values.round(), atol=1e-4)
    counts = np.bincount(values.round().astype(int).ravel(), minlength=256)
    assert stats.chisquare(counts).pvalue > 1e-3


def test_a_volume_is_erased_through_all_slices():
    volume = jnp.full((8, 3, 9, 9, 1), 0.5, jnp.float32)
    hole = erase(example_keys(KEY, 8), {"image": volume}, 1.0)["image"] != 0.5
    assert bool(hole.any()) and bool((hole == hole[:, :1]).all())
