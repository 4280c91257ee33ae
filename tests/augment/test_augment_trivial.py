"""TrivialAugment: each operation is Pillow's, one acts on an image, all equally often."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from scipy import stats
from small import quick

from cnn_jax.augment import affine, example_keys, trivial
from cnn_jax.augment.trivial import Operation

PIXELS = (np.random.default_rng(0).beta(2, 3, (40, 36, 3)) * 200 + 20).astype(np.uint8)
COLOUR = quick(trivial.colour)

PILLOW = {
    Operation.IDENTITY: lambda p, s: p,
    Operation.ROTATE: lambda p, s: p,
    Operation.BRIGHTNESS: lambda p, s: ImageEnhance.Brightness(p).enhance(1 + 0.99 * s),
    Operation.SATURATION: lambda p, s: ImageEnhance.Color(p).enhance(1 + 0.99 * s),
    Operation.CONTRAST: lambda p, s: ImageEnhance.Contrast(p).enhance(1 + 0.99 * s),
    Operation.SHARPNESS: lambda p, s: ImageEnhance.Sharpness(p).enhance(1 + 0.99 * s),
    Operation.POSTERIZE: lambda p, s: ImageOps.posterize(p, 8 - round(30 * abs(s)) // 5),
    Operation.SOLARIZE: lambda p, s: ImageOps.solarize(p, 255 * (1 - abs(s))),
    Operation.AUTOCONTRAST: lambda p, s: ImageOps.autocontrast(p),
    Operation.EQUALIZE: lambda p, s: ImageOps.equalize(p),
}


@pytest.mark.parametrize("operation", PILLOW)
def test_operations_are_pillows_to_within_its_rounding(operation):
    strengths = np.array([-30, -17, 0, 10, 11, 30], np.float32) / 30
    batch = {"image": jnp.asarray(np.stack([PIXELS] * 6), jnp.float32) / 255}
    ours = COLOUR(jnp.full(6, operation, jnp.int32), jnp.asarray(strengths), batch)["image"]
    theirs = [np.asarray(PILLOW[operation](Image.fromarray(PIXELS), s)) for s in strengths]
    exact = operation in (Operation.POSTERIZE, Operation.SOLARIZE, Operation.EQUALIZE)
    np.testing.assert_allclose(
        255 * np.asarray(ours), np.stack(theirs).astype(np.float32), atol=1e-3 if exact else 1.6
    )


def test_a_constant_or_tiny_channel_is_left_alone():
    constant = jnp.full((1, 30, 30, 1), 0.3, jnp.float32)
    tiny = jax.random.uniform(jax.random.key(0), (1, 8, 8, 1))
    np.testing.assert_allclose(trivial.equalize(constant), constant, atol=0.5 / 255)
    np.testing.assert_array_equal(trivial.autocontrast(constant), constant)
    np.testing.assert_allclose(trivial.equalize(tiny), tiny, atol=0.5 / 255 + 1e-6)


def test_geometry_moves_as_far_as_it_says_and_only_for_its_operations():
    operations = jnp.array([0, 1, 2, 3, 4, 5, 6], jnp.int32)
    at = trivial.geometry(operations, jnp.full(7, 0.5, jnp.float32), 20, 100)
    turn = np.deg2rad(135 / 2)
    cosine, sine = np.cos(turn), np.sin(turn)
    expected = [np.eye(2)] * 7
    expected[1], expected[2] = np.array([[1, 0], [-0.495, 1]]), np.array([[1, -0.495], [0, 1]])
    expected[5] = np.array([[cosine, sine], [-sine, cosine]])
    np.testing.assert_allclose(at.matrix, np.stack(expected), atol=1e-6)
    shift = np.zeros((7, 2))
    shift[3, 1], shift[4, 0] = 16, 10  # at most 32 pixels, or the side
    np.testing.assert_allclose(at.shift, shift)
    image = jax.random.uniform(jax.random.key(1), (7, 20, 100, 1))
    moved = affine.apply({"image": image}, [at], "zero")["image"]
    np.testing.assert_array_equal(moved[6], image[6])
    np.testing.assert_array_equal(moved[3, :, :-16], image[3, :, 16:])


def test_operations_strengths_and_signs_are_uniform():
    operation, strength = trivial.draw(example_keys(jax.random.key(2), 6000))
    assert stats.chisquare(np.bincount(operation, minlength=14)).pvalue > 1e-3
    level = np.asarray(jnp.abs(strength) * 30).round().astype(int)
    assert stats.chisquare(np.bincount(level, minlength=31)).pvalue > 1e-3
    negative = int((strength < 0).sum())
    assert stats.binomtest(negative, int((strength != 0).sum()), 0.5).pvalue > 1e-3
