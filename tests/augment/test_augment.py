"""Augmentation: geometry against NumPy, distribution, and independence of the batch."""

import dataclasses
import itertools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import quick

from cnn_jax.augment import Augment, cutmix, cutout, example_keys, flip, mixup, translate
from cnn_jax.augment.batch import Purpose
from cnn_jax.errors import RecipeError
from cnn_jax.recipe import AugmentRecipe

KEY = jax.random.key(7)


def compiled(transform, *static):
    """Jitted, as in the training step; also far faster than one operation at a time."""
    run = quick(
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
    padded_mask = np.pad(mask, ((0, 0), (2, 2), (2, 2)), mode=mode)
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


def test_cutmix_pastes_a_box_of_the_partner_and_says_its_exact_share():
    batch = batch_of(300, size=9)
    batch["valid"] = jnp.arange(300) < 280
    mixed = compiled(cutmix, 1.0)(batch)
    for i in (*range(20), 279, 285):
        partner = 279 - i if i < 280 else i
        inside = np.asarray(mixed["image"][i] == batch["image"][partner]).all(axis=-1)
        expected = np.where(inside[..., None], batch["image"][partner], batch["image"][i])
        np.testing.assert_array_equal(mixed["image"][i], expected)
        expected = np.where(inside, batch["mask"][partner], batch["mask"][i])
        np.testing.assert_array_equal(mixed["mask"][i], expected)
        assert int(mixed["mix_label"][i]) == int(batch["label"][partner])
        if i < 280:
            assert float(mixed["mix_share"][i]) == pytest.approx(inside.mean())
            rows, columns = inside.any(axis=1), inside.any(axis=0)
            np.testing.assert_array_equal(inside, rows[:, None] & columns[None, :])
    assert len(np.unique(mixed["mix_share"])) > 15  # of 9 x 9 sides, cut at the border


@pytest.mark.heavy
def test_of_mixup_and_cutmix_each_example_takes_one():
    batch = batch_of(400)
    both, mixed, pasted = (
        quick(Augment(**fields))(KEY, batch)
        for fields in ({"mixup": 0.4, "cutmix": 1.0}, {"mixup": 0.4}, {"cutmix": 1.0})
    )
    is_mixed, is_pasted = (
        np.isclose(both["image"], one["image"], atol=1e-6).all(axis=(1, 2, 3))
        & np.isclose(both["mix_share"], one["mix_share"])
        for one in (mixed, pasted)
    )
    assert (is_mixed | is_pasted).all()
    assert 160 < is_mixed.sum() < 240


def test_an_alternating_flip_shows_each_example_once_each_way_in_two_epochs():
    batch = {**batch_of(64), "index": jnp.arange(64, dtype=jnp.int32)[::-1]}
    augment = quick(Augment(flip="alternating"))

    def seen(epoch, rows, step):
        part = {name: values[rows] for name, values in batch.items()}
        step_key = jax.random.fold_in(KEY, step)
        shown = augment(step_key, part, root=KEY, epoch=jnp.int32(epoch))["image"]
        return np.asarray((shown != part["image"]).any(axis=(1, 2, 3)))

    first = seen(0, np.arange(64), 0)
    assert 16 < first.sum() < 48
    for epoch in (1, 2, 3):
        rows = np.random.default_rng(epoch).permutation(64)  # another order, another step
        np.testing.assert_array_equal(seen(epoch, rows, epoch), first[rows] ^ (epoch % 2 == 1))
    with pytest.raises(RecipeError, match="root="):
        Augment(flip="alternating")(KEY, batch)


@pytest.mark.parametrize(
    ("fields", "image", "mask"),
    [
        ({"translate": 2}, 2739229933, 2955310395),
        ({"translate": 2, "padding": "reflect"}, 1626965960, 3455925894),
        ({"flip": True}, 80086960, 3061148206),
        ({"cutout": 3}, 2493609516, 1604202984),
        ({"translate": 1, "flip": True, "cutout": 2}, 2463477324, 661375085),
    ],
)
def test_recorded_runs_stay_reproducible(fields, image, mask):
    """Results of version 0.1.0; they move and clear pixels, so every bit is fixed."""
    out = quick(Augment(**fields))(KEY, recorded_batch())
    assert zlib.crc32(np.asarray(out["image"]).tobytes()) == image
    assert zlib.crc32(np.asarray(out["mask"]).tobytes()) == mask


def test_recorded_mixup_stays_reproducible():
    out = quick(Augment(mixup=0.4))(KEY, recorded_batch())
    shares = [
        0.0076267,
        0.3978305,
        0.4618710,
        0.3258457,
        0.3486775,
        0.3860044,
        0.1296466,
        0.1673083,
    ]
    np.testing.assert_allclose(out["mix_share"], np.array(shares), rtol=1e-4)


def recorded_batch():
    pixels = np.arange(8 * 6 * 5 * 3, dtype=np.uint32) * np.uint32(2654435761) % np.uint32(251)
    return {
        "image": jnp.asarray(pixels.reshape(8, 6, 5, 3) / np.float32(256), jnp.float32),
        "mask": jnp.asarray((pixels[:240] % 5).reshape(8, 6, 5), jnp.uint8),
        "label": jnp.arange(8, dtype=jnp.int32),
        "valid": jnp.ones(8, bool),
    }


EVERYTHING = {
    "crop": 0.5, "shear": 10, "scale": 0.2, "rotate": 20, "policy": "trivial", "translate": 2,
    "padding": "reflect", "flip": True, "flip_vertical": True, "brightness": 0.4, "contrast": 0.4,
    "saturation": 0.4, "hue": 0.1, "blur": 0.6, "noise": 0.05, "cutout": 3, "erase": 0.5,
}  # fmt: skip
ALL = quick(Augment(**EVERYTHING))
MIXED = quick(Augment(**EVERYTHING, mixup=0.4, cutmix=1.0))


@pytest.mark.heavy
def test_everything_together_stays_in_range_and_float32():
    batch = batch_of(12, channels=3)
    out = MIXED(KEY, batch)
    assert out["image"].dtype == jnp.float32 and out["mask"].dtype == jnp.uint8
    assert float(out["image"].min()) >= 0 and float(out["image"].max()) <= 1
    assert set(np.unique(out["mask"])) <= set(range(5))
    assert set(out) == {*batch, "mix_label", "mix_share"}


def test_an_example_is_augmented_alike_beside_any_others():
    batch = batch_of(12, channels=3)
    other = {**batch, "image": batch["image"].at[5:].set(0.25), "valid": jnp.arange(12) < 5}
    whole, beside = ALL(KEY, batch), ALL(KEY, other)
    for name in ("image", "mask"):
        np.testing.assert_array_equal(beside[name][:5], whole[name][:5])


def test_an_example_is_augmented_alike_in_a_batch_of_any_size():
    """What happens to an example follows from its position, not from what is behind it."""
    augment = quick(Augment(translate=2, padding="reflect", flip=True, cutout=3, erase=0.5))
    batch = batch_of(12)
    whole = augment(KEY, batch)
    front = augment(KEY, {name: rows[:5] for name, rows in batch.items()})
    for name in front:
        np.testing.assert_array_equal(front[name], whole[name][:5])


@pytest.mark.heavy
def test_it_is_the_same_over_two_devices():
    batch = batch_of(12, channels=3)
    mesh = jax.make_mesh((2,), ("data",), (jax.sharding.AxisType.Auto,))
    spread = jax.device_put(batch, jax.NamedSharding(mesh, jax.P("data")))
    alone, together = MIXED(KEY, batch), MIXED(KEY, spread)
    for name in alone:
        np.testing.assert_allclose(alone[name], together[name], atol=1e-6)


def test_parts_of_a_batch_are_what_they_were_in_the_whole():
    """Gradients may be accumulated over any parts: mixing is done before a batch is cut up."""
    batch, augment = batch_of(12), Augment(translate=1, flip=True, mixup=0.4, cutmix=1.0)

    def in_parts(key, batch):
        parts = [jax.tree.map(lambda x, k=k: x[k::3], augment(key, batch)) for k in range(3)]
        return jax.tree.map(lambda *x: jnp.stack(x, axis=1).reshape(-1, *x[0].shape[1:]), *parts)

    whole = quick(augment)(KEY, batch)
    for name, rows in quick(in_parts)(KEY, batch).items():
        np.testing.assert_allclose(rows, whole[name], atol=1e-6)


def test_one_key_one_result():
    batch = batch_of(12, channels=3)
    np.testing.assert_array_equal(ALL(KEY, batch)["image"], ALL(KEY, batch)["image"])
    other = ALL(jax.random.key(8), batch)["image"]
    assert not np.array_equal(ALL(KEY, batch)["image"], other)


def test_switching_one_on_leaves_the_draws_of_the_others():
    batch = batch_of(32)
    shifted = quick(Augment(translate=2))(KEY, batch)["image"]
    both = quick(Augment(translate=2, flip=True))(KEY, batch)["image"]
    same = (both == shifted).all(axis=(1, 2, 3)) | (both == shifted[:, :, ::-1]).all(axis=(1, 2, 3))
    assert bool(same.all())


def test_nothing_asked_nothing_done():
    batch = batch_of(4)
    assert Augment()(KEY, batch) == batch
    traced = jax.make_jaxpr(Augment())(KEY, batch)
    assert all(equation.outvars for equation in traced.eqns) and not traced.eqns


def test_the_recipe_and_the_transforms_have_the_same_fields():
    names = [[f.name for f in dataclasses.fields(c)] for c in (Augment, AugmentRecipe)]
    assert names[0] == names[1]
    assert len(set(Purpose)) == 23


def test_a_volume_is_shifted_mirrored_and_cut_along_all_three_axes():
    batch = {
        "image": jax.random.uniform(KEY, (40, 6, 7, 8, 1)),
        "label": jnp.arange(40, dtype=jnp.int32),
    }
    batch["mask"] = (batch["image"][..., 0] * 255).astype(jnp.uint8)
    augment = Augment(translate=1, flip=True, flip_vertical=True, flip_depth=True)
    augment.check((6, 7, 8, 1))
    moved = quick(augment)(KEY, batch)
    np.testing.assert_array_equal((moved["image"][..., 0] * 255).astype(jnp.uint8), moved["mask"])
    seen = dict.fromkeys(range(3), 0)
    for before, after in zip(batch["image"], moved["image"], strict=True):
        padded = np.pad(before, ((1, 1), (1, 1), (1, 1), (0, 0)))
        found = [
            (offset, signs)
            for offset in np.ndindex(3, 3, 3)
            for signs in itertools.product((1, -1), repeat=3)
            if np.array_equal(
                padded[tuple(slice(o, o + n) for o, n in zip(offset, (6, 7, 8), strict=True))][
                    :: signs[0], :: signs[1], :: signs[2]
                ],
                after,
            )
        ]
        assert len(found) == 1
        for axis, sign in enumerate(found[0][1]):
            seen[axis] += sign == -1
    assert all(8 < times < 32 for times in seen.values())
    cut = np.asarray(quick(Augment(cutout=3))(KEY, batch)["image"]) == 0
    assert cut.sum(axis=(1, 2, 3, 4)).max() == 27


@pytest.mark.parametrize(
    ("fields", "shape", "message"),
    [
        ({"translate": 8}, (8, 20, 1), "translate is 8 pixels"),
        ({"cutout": 8}, (8, 20, 1), "cutout is 8 pixels"),
        ({"cutout": 8}, (6, 20, 20, 1), "cutout is 8 pixels"),
        ({"blur": 3}, (8, 20, 1), "blur reaches 9 pixels"),
        ({"hue": 0.1}, (8, 8, 1), "augment.hue needs RGB"),
        ({"saturation": 0.1}, (4, 8, 8, 3), "augment.saturation needs RGB"),
        ({"policy": "trivial"}, (4, 8, 8, 1), "augment.policy is for images"),
        ({"flip_depth": True}, (8, 8, 1), "augment.flip_depth is for volumes"),
    ],
)
def test_what_does_not_fit_is_refused(fields, shape, message):
    Augment(**fields).check((32, 32, 32, 1) if "flip_depth" in fields else (32, 32, 3))
    with pytest.raises(RecipeError, match=message):
        Augment(**fields).check(shape)
