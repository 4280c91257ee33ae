"""What is marked in one image, copied into the next: against a search over all ways to move it."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import uniform_filter
from small import quick

from cnn_jax.augment import Augment
from cnn_jax.augment.copying import copy_paste
from cnn_jax.errors import RecipeError

N, HEIGHT, WIDTH = 24, 10, 12
KEYS = jax.random.split(jax.random.key(5), N)


def batch_of(channels=1, seed=0):
    """Images whose marked parts are of regions 2 and 3, none alike; a third has nothing marked."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((N, HEIGHT, WIDTH), np.uint8)
    for n in range(N):
        if n % 3:
            masks[n, 1 : 3 + n % 4, 2:5] = 1 + n % 3
            masks[n, 1, 4] = 0  # no symmetry
    images = rng.uniform(0.3, 0.6, (N, HEIGHT, WIDTH, channels)).astype(np.float32)
    return {"image": jnp.asarray(images), "mask": jnp.asarray(masks)}


def moved(x, up, left, shift):
    x = x[::-1] if up else x
    x = x[:, ::-1] if left else x
    return np.roll(x, shift, (0, 1))


PASTED = quick(copy_paste, static_argnums=2)


@pytest.mark.parametrize("channels", [1, 3])
def test_marks_are_moved_whole_with_their_pixels(channels):
    batch = batch_of(channels)
    after = {name: np.asarray(rows) for name, rows in PASTED(KEYS, batch, 1.0).items()}
    images, masks = np.asarray(batch["image"]), np.asarray(batch["mask"])
    stayed = turned = 0
    for n in range(N):
        m = (n + 1) % N
        ways = [
            (up, left, shift)
            for up, left in itertools.product((False, True), repeat=2)
            for shift in itertools.product(range(HEIGHT), range(WIDTH))
            if np.array_equal(
                np.where(
                    moved(masks[m], up, left, shift), moved(masks[m], up, left, shift), masks[n]
                ),
                after["mask"][n],
            )
        ]
        assert ways
        if not masks[m].any():
            np.testing.assert_array_equal(after["image"][n], images[n])
            continue
        up, left, shift = ways[0]
        there = moved(masks[m], up, left, shift) > 0
        soft = uniform_filter(there.astype(np.float32), 3, mode="nearest")[..., None]
        level = images[n].mean() / images[m].mean()
        new = np.clip(moved(images[m], up, left, shift) * level, 0, 1)
        expected = images[n] * (1 - soft) + new * soft
        np.testing.assert_allclose(after["image"][n], expected, atol=1e-5)
        stayed += shift == (0, 0)
        turned += up or left
    assert 3 < stayed < 13 and turned > 6  # of 16
    assert after["mask"].dtype == np.uint8 and set(np.unique(after["mask"])) == {0, 2, 3}


def test_so_many_images_get_a_copy():
    batch = batch_of()
    none = PASTED(KEYS, batch, 0.0)
    for name, rows in batch.items():
        np.testing.assert_array_equal(none[name], rows)
    keys = jax.random.split(jax.random.key(1), N)
    changed = [
        (np.asarray(PASTED(keys, batch, p)["image"]) != np.asarray(batch["image"])).any((1, 2, 3))
        for p in (0.5, 1.0)
    ]
    assert changed[1].sum() == 16 and 4 <= changed[0].sum() <= 12
    assert (changed[0] <= changed[1]).all()


def test_padding_is_copied_nowhere():
    batch = {**batch_of(), "valid": jnp.arange(N) < 5}
    other = {**batch, "image": batch["image"].at[5:].set(1.0), "mask": batch["mask"].at[5:].set(2)}
    augment = quick(Augment(flip=True, copy_paste=1.0))
    found, beside = (augment(jax.random.key(3), one) for one in (batch, other))
    for name in ("image", "mask"):
        np.testing.assert_array_equal(found[name][:5], beside[name][:5])


def test_a_volume_is_refused():
    with pytest.raises(RecipeError, match=r"augment\.copy_paste is for images, not volumes"):
        Augment(copy_paste=0.5).check((20, 20, 20, 1))
