import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import label
from small import quick

from cnn_jax.augment import Augment
from cnn_jax.augment.defects import (
    add_defects,
    band,
    bite,
    blob,
    damaged,
    line,
    pieces,
    some_damaged,
)
from cnn_jax.errors import RecipeError

KEYS = jax.random.split(jax.random.key(0), 64)
SHAPES = (blob, pieces, line, bite, band)


@functools.cache
def drawn(shape, height=48, width=60):
    return np.asarray(quick(jax.vmap(lambda key: shape(key, height, width)))(KEYS))


def images(n=64, size=(48, 60), channels=1):
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.uniform(0.2, 0.8, (n, *size, channels)), jnp.float32)


damage_with = quick(jax.vmap(damaged))  # of one size, so that it is compiled once


def damage(keys, images):
    """With the texture of the next image."""
    return damage_with(keys, images, jnp.roll(images, -1, axis=0))


@pytest.mark.parametrize("shape", SHAPES)
def test_outlines_differ_and_leave_most_of_the_image(shape):
    found = drawn(shape)
    assert found.dtype == np.bool_ and found.shape == (64, 48, 60)
    share = found.mean(axis=(1, 2))
    assert (share < (0.65 if shape is band else 0.45)).all() and (share > 0).mean() > 0.9
    assert len({one.tobytes() for one in found}) > 55
    # They come near every place of the image.
    coarse = found.any(axis=0).reshape(8, 6, 10, 6).any(axis=(1, 3))
    assert coarse.mean() > (0.5 if shape is bite else 0.8)


def test_blobs_cover_what_they_should():
    share = drawn(blob).mean(axis=(1, 2))
    assert share.min() > 0.02 and share.max() < 0.33
    assert share.min() < 0.06 and share.max() > 0.25


def test_lines_are_long_and_thin():
    longest = []
    for one in drawn(line):
        assert one.sum() < 0.06 * one.size
        rows, columns = np.nonzero(one)
        if len(rows):
            longest.append(max(np.ptp(rows), np.ptp(columns)))
    assert max(longest) > 20


def test_bites_touch_the_border():
    for one in drawn(bite):
        parts, count = label(one, np.ones((3, 3)))
        border = np.unique(np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]]))
        assert set(range(1, count + 1)) <= set(border.tolist())


def test_every_side_is_bitten():
    found = drawn(bite)
    for side in (found[:, 0], found[:, -1], found[:, :, 0], found[:, :, -1]):
        assert side.any(axis=1).sum() > 5


def test_bands_lie_along_all_of_one_border():
    sides = set()
    for one in drawn(band):
        whole = [side.all() for side in (one[0], one[-1], one[:, 0], one[:, -1])]
        sides.update(np.flatnonzero(whole).tolist())
        assert any(whole)
        assert label(one)[1] == 1
    assert sides == {0, 1, 2, 3}
    share = drawn(band).mean(axis=(1, 2))
    assert share.min() < 0.06 and share.max() > 0.35


@pytest.mark.heavy
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_marked_is_what_can_be_seen(channels):
    before = images(channels=channels)
    after, where = damage(KEYS, before)
    assert after.dtype == jnp.float32 and (after >= 0).all() and (after <= 1).all()
    seen = (np.abs(np.asarray(after) - np.asarray(before)) > 0.03).any(axis=-1)
    np.testing.assert_array_equal(where, seen)
    assert seen.any(axis=(1, 2)).mean() > 0.8 and seen.mean() < 0.25
    # Beyond its soft edge nothing is touched.
    assert ((np.asarray(after) != np.asarray(before)).any(axis=-1)).mean() < 0.4


def test_an_image_depends_on_its_key_and_the_other_image_alone():
    before = images()
    after, where = damage(KEYS, before)
    alone, own = quick(damaged)(KEYS[5], before[5], before[6])
    np.testing.assert_allclose(alone, after[5], atol=1e-6)
    np.testing.assert_array_equal(own, where[5])
    others, _ = damage(KEYS[::-1], before)
    assert (np.asarray(others) != np.asarray(after)).any(axis=(1, 2, 3)).mean() > 0.9


def test_shades_of_grey():
    """Texture of an image of one grey shows nothing; shades do."""
    grey = jnp.full((64, 48, 60, 1), 0.5, jnp.float32)
    after, where = damage(KEYS, grey)
    levels = np.asarray(after)[np.asarray(where)]
    assert 0.1 < levels.min() < 0.35 and 0.53 < levels.max() < 0.59  # 0.5 -+ 0.5 (0.65, 0.15)
    black, seen = map(np.asarray, damage(KEYS, jnp.zeros_like(grey)))
    assert 0.1 < black.max() < 0.16 and not black[..., 0][~seen].max() > 0.03  # lighter alone


def test_textures_come_from_the_other_image():
    """What is red there is red here, wherever it was moved."""
    grey = jnp.full((64, 48, 60, 3), 0.5, jnp.float32)
    red = jnp.asarray(np.full((64, 48, 60, 3), (0.9, 0.1, 0.1)), jnp.float32)
    after, where = (np.asarray(x) for x in damage_with(KEYS, grey, red))
    textured = [i for i in range(64) if np.ptp(after[i], axis=-1).max() > 0.05]
    assert 15 < len(textured) < 50  # one in two
    for i in textured:
        inside = after[i][where[i]]
        assert (inside[:, 0] >= inside[:, 1]).all()


def masked(n=64, seed=2):
    """Images of which every fourth has a marked pixel."""
    mask = np.zeros((n, 48, 60), np.uint8)
    mask[::4, 7, 9] = 1
    return {"image": images(n), "mask": jnp.asarray(mask)}


@pytest.mark.heavy
def test_a_mask_marks_what_was_marked_and_what_was_made():
    batch = masked()
    defective = quick(add_defects)
    after = defective(KEYS, batch, 0.7)
    wanted = quick(some_damaged, static_argnums=2)(KEYS, batch["image"], None, 0.7)
    changed, where = map(np.asarray, wanted)
    np.testing.assert_allclose(after["image"], changed, atol=1e-6)
    np.testing.assert_array_equal(after["mask"], where | np.asarray(batch["mask"], bool))
    assert after["mask"].dtype == jnp.uint8
    same = (np.asarray(after["image"]) == np.asarray(batch["image"])).all(axis=(1, 2, 3))
    assert 0.15 < same.mean() < 0.5 and not where[same].any()
    none = defective(KEYS, batch, 0.0)
    for name, rows in batch.items():
        np.testing.assert_array_equal(none[name], rows)


@pytest.mark.heavy
def test_padding_gives_no_texture():
    """The last valid image takes that of the first, whatever lies behind it."""
    batch = {**masked(16), "valid": jnp.arange(16) < 5}
    other = {**batch, "image": batch["image"].at[5:].set(1.0)}
    augment = quick(Augment(flip=True, defects=1.0))
    found, beside = (augment(jax.random.key(3), one) for one in (batch, other))
    alone = augment(jax.random.key(3), {name: rows[:5] for name, rows in batch.items()})
    for name in ("image", "mask"):
        np.testing.assert_array_equal(found[name][:5], beside[name][:5])
        np.testing.assert_allclose(found[name][:5], alone[name], atol=1e-6)
    assert np.asarray(found["mask"][:5]).any(axis=(1, 2)).sum() > 2


def test_what_no_defect_can_be_made_in():
    for shape in ((7, 30, 1), (20, 20, 20, 1)):
        with pytest.raises(RecipeError, match=r"augment\.defects are made in images of 8 pixels"):
            Augment(defects=0.5).check(shape)
    with pytest.raises(RecipeError, match=r"augment\.patch|augment\.defects are made"):
        Augment(defects=0.5, patch=6).check((20, 20, 1))
