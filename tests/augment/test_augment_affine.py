"""Affine geometry against SciPy and Pillow, exact cases, and the distribution of draws."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage, stats
from small import quick

from cnn_jax.augment import Augment, affine, example_keys

KEY = jax.random.key(3)
MODES = {"zero": "grid-constant", "reflect": "mirror"}


def images(n=4, height=9, width=12, channels=2):
    return np.random.default_rng(0).random((n, height, width, channels), np.float32)


def apply(image, maps, padding="zero", **more):
    return quick(lambda b: affine.apply(b, maps, padding))({"image": jnp.asarray(image), **more})


def random_map(n, seed=1):
    rng = np.random.default_rng(seed)
    matrix = np.eye(2) + rng.uniform(-0.6, 0.6, (n, 2, 2))
    return affine.Map(
        jnp.asarray(matrix, jnp.float32), jnp.asarray(rng.uniform(-3, 3, (n, 2)), jnp.float32)
    )


def scipy_affine(image, at, padding, order):
    """One example, float64; `at` is (matrix, shift)."""
    matrix, shift = (np.asarray(x, np.float64) for x in at)
    centre = (np.array(image.shape[:2]) - 1) / 2
    offset = centre + shift - matrix @ centre
    moved = [
        ndimage.affine_transform(
            image[..., c].astype(np.float64), matrix, offset, order=order, mode=MODES[padding]
        )
        for c in range(image.shape[-1])
    ]
    return np.stack(moved, axis=-1)


@pytest.mark.parametrize("padding", MODES)
def test_it_is_scipys_affine_transform(padding):
    image, at = images(), random_map(4)
    mask = np.random.default_rng(2).integers(1, 6, image.shape[:3]).astype(np.uint8)
    moved = apply(image, [at], padding, mask=jnp.asarray(mask))
    for i in range(4):
        one = (at.matrix[i], at.shift[i])
        np.testing.assert_allclose(
            moved["image"][i], scipy_affine(image[i], one, padding, 1), atol=4e-4
        )
        nearest = scipy_affine(mask[i][..., None], one, padding, 0)[..., 0]
        assert (np.asarray(moved["mask"][i]) == nearest).mean() > 0.99  # ties may differ


def test_maps_compose_into_one_with_the_first_acting_first():
    image = np.zeros((1, 41, 41, 1), np.float32)
    image[0, 14:28, 17:22] = 1
    image = ndimage.gaussian_filter(image, (0, 3, 3, 0))  # smooth: resampling twice costs little
    maps = [random_map(1, seed) for seed in (5, 6)]
    twice = apply(apply(image, maps[:1])["image"], maps[1:])["image"]
    np.testing.assert_allclose(apply(image, maps)["image"], twice, atol=0.02)


def test_turns_go_the_way_of_pillow_and_quarter_turns_are_exact():
    image = images(1, 8, 8, 1)
    for degrees in (90, 180, 270):
        at = affine.rotation(jnp.array([math.radians(degrees)], jnp.float32))
        expected = np.rot90(image, degrees // 90, axes=(1, 2))
        np.testing.assert_array_equal(apply(image, [at])["image"], expected)
    pillow = Image.fromarray(image[0, ..., 0]).rotate(20, Image.Resampling.BILINEAR)
    ours = apply(image, [affine.rotation(jnp.array([math.radians(20)], jnp.float32))])["image"]
    # Pillow does not blend with the black outside.
    np.testing.assert_allclose(ours[0, 2:-2, 2:-2, 0], np.asarray(pillow)[2:-2, 2:-2], atol=1e-3)


@settings(max_examples=6, deadline=None, derandomize=True)
@given(
    st.integers(1, 7), st.integers(1, 7), st.sampled_from([1, 3]), st.sampled_from(sorted(MODES))
)
def test_the_identity_is_exact_for_any_shape_and_nothing_leaves_the_range(
    height, width, channels, padding
):
    image = images(2, height, width, channels)
    run = quick(lambda image, at: affine.apply({"image": image}, [at], padding)["image"])
    same = run(image, affine.rotation(jnp.zeros(2, jnp.float32)))
    np.testing.assert_array_equal(same, image)
    moved = run(image, random_map(2))
    assert moved.shape == image.shape and moved.dtype == jnp.float32
    assert float(moved.min()) >= 0 and float(moved.max()) <= 1


def test_an_image_that_is_its_own_mask_stays_so():
    mask = np.zeros((8, 24, 20), np.uint8)
    mask[:, 6:15, 5:12] = 1
    batch = {"image": jnp.asarray(mask[..., None], jnp.float32), "mask": jnp.asarray(mask)}
    augment = Augment(rotate=180, scale=0.3, shear=20, crop=0.5, translate=3, flip=True)
    moved = quick(augment)(KEY, batch)
    image, mask = np.asarray(moved["image"][..., 0]), np.asarray(moved["mask"])
    assert mask.any(axis=(1, 2)).all()
    sure = np.abs(image - 0.5) > 0.45
    np.testing.assert_array_equal((image > 0.5)[sure], mask[sure] == 1)


def test_the_slices_of_a_volume_move_alike():
    image = images(3 * 4, 9, 12, 2).reshape(3, 4, 9, 12, 2)
    at, mask = random_map(3), np.ones((3, 4, 9, 12), np.uint8)
    moved = apply(image, [at], mask=jnp.asarray(mask))
    for d in range(4):
        alone = apply(image[:, d], [at], mask=jnp.asarray(mask[:, d]))
        np.testing.assert_allclose(moved["image"][:, d], alone["image"], rtol=1e-6)
        np.testing.assert_array_equal(moved["mask"][:, d], alone["mask"])


def test_draws_have_the_distributions_they_promise():
    keys = example_keys(KEY, 3000)
    turn = np.asarray(affine.rotate(keys, 30).matrix)
    angle = np.degrees(np.arctan2(turn[:, 0, 1], turn[:, 0, 0]))
    size = -np.log(np.asarray(affine.scale(keys, 0.5).matrix)[:, 0, 0])
    lean = np.degrees(np.arctan(np.asarray(affine.shear(keys, 10).matrix)[:, 1, 0]))
    for values, most in ((angle, 30), (size, math.log(1.5)), (lean, 10)):
        assert stats.kstest(values, stats.uniform(-most, 2 * most).cdf).pvalue > 1e-3


def test_a_crop_lies_inside_and_has_the_area_and_ratio_asked_for():
    part = affine.crop(example_keys(KEY, 3000), 20, 30, 0.4, 1.2)
    sides = np.asarray(part.matrix)[:, [0, 1], [0, 1]]
    assert (np.abs(part.shift) <= (1 - sides) * np.array([10, 15]) + 1e-5).all()
    whole = (sides < 1).all(axis=1)  # a side that would not fit is cut to the image's
    area, ratio = sides.prod(axis=1), np.log(sides[:, 0] / sides[:, 1])
    assert area.min() > 0.38 and np.abs(ratio).max() <= math.log(1.2) + 1e-5
    small = whole & (area < 0.8)
    assert stats.kstest(area[small], stats.uniform(0.4, 0.4).cdf).pvalue > 1e-3
    ends = stats.uniform(-math.log(1.2), 2 * math.log(1.2))
    assert stats.kstest(ratio[small], ends.cdf).pvalue > 1e-3
