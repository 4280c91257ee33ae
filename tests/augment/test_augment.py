"""Augmentation: geometry against NumPy, distribution, and independence of the batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.augment import Augment, cutout, example_keys, flip, mixup, translate
from cnn_jax.errors import RecipeError

KEY = jax.random.key(7)


def compiled(transform, *static):
    """Jitted, as in the training step; also far faster than one operation at a time."""
    run = jax.jit(
        lambda key, batch: transform(example_keys(key, len(batch["label"])), batch, *static)
    )
    return lambda batch, key=KEY: run(key, batch)


def batch_of(n, size=6, channels=2, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "image": jnp.asarray(rng.random((n, size, size, channels), np.float32)),
        "mask": jnp.asarray(rng.integers(1, 5, (n, size, size)), jnp.uint8),
        "label": jnp.arange(n, dtype=jnp.int32) % 3,
        "valid": jnp.ones(n, bool),
    }


@pytest.mark.parametrize(("padding", "mode"), [("zero", "constant"), ("reflect", "reflect")])
def test_translate_is_a_window_of_the_padded_image(padding, mode):
    batch = batch_of(64)
    moved = compiled(translate, 2, padding)(batch)
    image, mask = np.asarray(batch["image"]), np.asarray(batch["mask"])
    padded = np.pad(image, ((0, 0), (2, 2), (2, 2), (0, 0)), mode=mode)
    padded_mask = np.pad(mask, ((0, 0), (2, 2), (2, 2)))
    seen = set()
    for i in range(64):
        windows = {
            (r, c)
            for r in range(5)
            for c in range(5)
            if np.array_equal(padded[i, r : r + 6, c : c + 6], moved["image"][i])
        }
        assert len(windows) == 1
        r, c = windows.pop()
        np.testing.assert_array_equal(padded_mask[i, r : r + 6, c : c + 6], moved["mask"][i])
        seen.add((r, c))
    assert len(seen) > 15  # of 25 shifts: the draws differ from example to example


def test_flip_mirrors_half_of_the_images_with_their_masks():
    batch = batch_of(400)
    flipped = compiled(flip)(batch)
    same = (flipped["image"] == batch["image"]).all(axis=(1, 2, 3))
    mirrored = (flipped["image"] == batch["image"][:, :, ::-1]).all(axis=(1, 2, 3))
    assert bool((same ^ mirrored).all())
    assert 160 < int(same.sum()) < 240
    expected = jnp.where(mirrored[:, None, None], batch["mask"][:, :, ::-1], batch["mask"])
    np.testing.assert_array_equal(flipped["mask"], expected)


def test_cutout_clears_a_square_and_nothing_else():
    batch = {**batch_of(200), "image": jnp.ones((200, 8, 8, 3), jnp.float32)}
    cut = np.asarray(compiled(cutout, 4)(batch)["image"])
    assert set(np.unique(cut)) == {0.0, 1.0}
    for hole in (1 - cut[..., 0]).astype(bool):
        rows, columns = np.flatnonzero(hole.any(axis=1)), np.flatnonzero(hole.any(axis=0))
        assert 2 <= len(rows) <= 4 and 2 <= len(columns) <= 4  # cut at the border only
        assert hole.sum() == len(rows) * len(columns)


def test_mixup_mixes_image_and_label_alike_and_never_with_padding():
    batch = batch_of(10)
    batch["valid"] = jnp.arange(10) < 7
    batch["image"] = jnp.broadcast_to(
        jnp.where(batch["valid"], jnp.arange(10.0), 1e6)[:, None, None, None], (10, 4, 4, 1)
    )
    mixed = compiled(mixup, 0.5)(batch)
    for i in range(7):
        partner = 6 - i
        share = float(mixed["mix_share"][i])
        assert 0 <= share <= 0.5
        np.testing.assert_allclose(mixed["image"][i], (1 - share) * i + share * partner, rtol=1e-6)
        assert int(mixed["mix_label"][i]) == int(batch["label"][partner])


def test_mixup_share_follows_the_folded_beta_distribution():
    batch = batch_of(4000, size=1, channels=1)
    share = np.asarray(compiled(mixup, 0.4)(batch)["mix_share"])
    scipy_stats = pytest.importorskip("scipy.stats")
    cdf = lambda s: 2 * scipy_stats.beta(0.4, 0.4).cdf(s)  # noqa: E731
    assert scipy_stats.kstest(share, cdf).pvalue > 1e-3


ALL = jax.jit(Augment(translate=2, padding="reflect", flip=True, cutout=3))


def test_an_example_is_augmented_alike_in_any_batch():
    """What happens to an example follows from its position, not from what is behind it."""
    batch = batch_of(12)
    whole = ALL(KEY, batch)
    front = ALL(KEY, {name: rows[:5] for name, rows in batch.items()})
    for name in front:
        np.testing.assert_array_equal(front[name], whole[name][:5])


def test_it_is_the_same_over_two_devices():
    batch = batch_of(12)
    mesh = jax.make_mesh((2,), ("data",), (jax.sharding.AxisType.Auto,))
    spread = jax.device_put(batch, jax.NamedSharding(mesh, jax.P("data")))
    np.testing.assert_array_equal(ALL(KEY, spread)["image"], ALL(KEY, batch)["image"])


def test_one_key_one_result():
    batch = batch_of(8)
    np.testing.assert_array_equal(ALL(KEY, batch)["image"], ALL(KEY, batch)["image"])
    other = ALL(jax.random.key(8), batch)["image"]
    assert not np.array_equal(ALL(KEY, batch)["image"], other)


def test_switching_one_on_leaves_the_draws_of_the_others():
    batch = batch_of(32)
    shifted = jax.jit(Augment(translate=2))(KEY, batch)["image"]
    both = jax.jit(Augment(translate=2, flip=True))(KEY, batch)["image"]
    same = (both == shifted).all(axis=(1, 2, 3)) | (both == shifted[:, :, ::-1]).all(axis=(1, 2, 3))
    assert bool(same.all())


def test_nothing_asked_nothing_done():
    batch = batch_of(4)
    assert Augment()(KEY, batch) == batch


@pytest.mark.parametrize("wrong", [Augment(translate=8), Augment(cutout=8)])
def test_a_shift_as_large_as_the_image_is_refused(wrong):
    with pytest.raises(RecipeError, match="8 pixels"):
        wrong.check((8, 20, 1))


def test_volumes_are_refused():
    with pytest.raises(RecipeError, match=r"\[H, W, C\]"):
        Augment(flip=True).check((4, 8, 8, 1))
    Augment().check((4, 8, 8, 1))
