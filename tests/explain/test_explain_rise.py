"""RISE against the mean over all masks there are."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import quick

from cnn_jax.errors import ModelError
from cnn_jax.explain import rise
from cnn_jax.explain.rise import mask

SHAPE = (2, 4, 3, 2)
TARGET = np.array([2, 0], np.int32)
KEEP = 0.4


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


W = draw(24, 3, seed=1)


def logits(x):
    return x.reshape(len(x), -1) @ jnp.asarray(W, x.dtype)


def weights_of(size, cells):
    """float64 `[size, cells]`: how bilinear enlarging, pixels in their middles, mixes cells."""
    at = np.clip((np.arange(size) + 0.5) * cells / size - 0.5, 0, cells - 1)
    low = np.minimum(at.astype(int), cells - 2)
    mixed = np.zeros((size, cells))
    mixed[np.arange(size), low] = 1 - (at - low)
    mixed[np.arange(size), low + 1] += at - low
    return mixed


def all_masks():
    """Every mask of 2 x 2 cells for 4 x 3 pixels, with its probability; both sides of a cell: 2."""
    tall, wide = weights_of(6, 2), weights_of(6, 2)
    for bits in itertools.product((0, 1), repeat=4):
        large = tall @ np.reshape(bits, (2, 2)) @ wide.T
        chance = KEEP ** sum(bits) * (1 - KEEP) ** (4 - sum(bits)) / 4
        for top, left in itertools.product(range(2), repeat=2):
            yield large[top : top + 4, left : left + 3], chance


def by_hand(x):
    """E[p M] / E[M], and the standard deviation of one sample of it."""
    first = second = expected = 0
    for one, chance in all_masks():
        out = (x * one[..., np.newaxis]).reshape(2, -1) @ W
        p = np.exp(out) / np.exp(out).sum(axis=1, keepdims=True)
        term = p[np.arange(2), TARGET][:, np.newaxis, np.newaxis] * one
        first, second = first + chance * term, second + chance * term**2
        expected = expected + chance * one
    np.testing.assert_allclose(expected, KEEP, atol=1e-12)  # the same at every pixel
    return first / KEEP, np.sqrt(second - first**2) / KEEP


def test_masks_are_those_of_the_paper():
    known = {tuple(np.round(one, 5).ravel()) for one, _ in all_masks()}
    drawn = jax.vmap(lambda key: mask(key, 4, 3, 2, KEEP))(jax.random.split(jax.random.key(0), 400))
    seen = {tuple(one) for one in np.round(np.asarray(drawn, np.float64), 5).reshape(400, -1)}
    assert {tuple(np.round(one, 4)) for one in seen} <= {tuple(np.round(o, 4)) for o in known}
    assert len(seen) > 0.8 * len(known)


def test_it_is_the_mean_over_all_masks_and_its_error_falls_with_the_root_of_the_samples():
    """Of 32 samples a key, and the mean over keys, which are as many more."""
    x = draw(*SHAPE)
    exact, deviation = by_hand(x)
    images = jnp.asarray(x, jnp.float32)

    def one(key):
        return rise(logits, images, TARGET, key, samples=32, cells=2, keep=KEEP, at_once=64)

    drawn = quick(lambda keys: jax.lax.map(one, keys))(jax.random.split(jax.random.key(7), 1024))
    errors = (np.asarray(drawn, np.float64) - exact) / deviation
    for keys in (1, 4, 16, 64, 256, 1024):
        left = errors.reshape(-1, keys, *SHAPE[:3]).mean(axis=1) * np.sqrt(32 * keys)
        assert abs(left).max() < 5  # standard errors
        np.testing.assert_allclose(np.sqrt((left**2).mean()), 1, rtol=0.05 + keys / 2000)


def test_what_no_pixel_changes_is_everywhere_alike():
    with jax.enable_x64(True):
        x = jnp.asarray(draw(*SHAPE))
        same = lambda x: jnp.zeros((len(x), 4))  # noqa: E731
        heat = quick(lambda x: rise(same, x, TARGET, jax.random.key(0), samples=4096, cells=2))(x)
        assert heat.dtype == jnp.float64 and heat.shape == SHAPE[:3]
        np.testing.assert_allclose(heat, 0.25, atol=4.5 * 0.25 / 64)


def test_masks_depend_neither_on_chunks_nor_on_the_other_images():
    x = jnp.asarray(draw(*SHAPE), jnp.float32)

    @quick
    def maps(x, key):
        def of(x, target, at_once):
            return rise(logits, x, target, key, samples=11, cells=3, at_once=at_once)

        return [of(x, TARGET, at_once) for at_once in (100, 1, 6)], of(x[1:], TARGET[1:], 32)

    (whole, *parts), alone = maps(x, jax.random.key(3))
    for part in parts:
        np.testing.assert_allclose(part, whole, atol=1e-5)
    np.testing.assert_allclose(alone, whole[1:], atol=1e-5)


def test_the_spot_that_is_looked_at_stands_out():
    x = jnp.ones((1, 14, 14, 1))
    sees = lambda x: jnp.stack([4 * x[:, 3:6, 9:12, 0].mean((1, 2)), jnp.ones(len(x))], 1)  # noqa: E731
    heat = quick(lambda x: rise(sees, x, np.array([0]), jax.random.key(1), samples=1500, cells=5))(
        x
    )
    row, column = np.unravel_index(int(heat[0].argmax()), (14, 14))
    assert 2 <= row <= 6 and 8 <= column <= 12


@pytest.mark.parametrize(("cells", "keep"), [(0, 0.5), (4, 0.5), (2, 0.0), (2, 1.0)])
def test_what_makes_no_mask_is_refused(cells, keep):
    x = jnp.zeros(SHAPE)
    with pytest.raises(ModelError, match="must be from 1 to 3"):
        rise(logits, x, TARGET, jax.random.key(0), samples=4, cells=cells, keep=keep)
    with pytest.raises(ModelError, match="one step or sample at least"):
        rise(logits, x, TARGET, jax.random.key(0), samples=0, cells=2)
