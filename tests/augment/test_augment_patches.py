import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import quick

from cnn_jax.augment import Augment, window_of
from cnn_jax.errors import RecipeError

KEY = jax.random.key(3)


def batch_of(n, shape, marked=()):
    """Images whose pixels hold their own position; the masks mark the given positions."""
    positions = np.arange(np.prod(shape), dtype=np.float32).reshape(shape) / np.prod(shape)
    mask = np.zeros(shape, np.uint8)
    for at in marked:
        mask[at] = 1
    return {
        "image": jnp.asarray(np.repeat(positions[None, ..., None], n, axis=0)),
        "mask": jnp.asarray(np.repeat(mask[None], n, axis=0)),
    }


def corners(out, shape):
    """Where the patches begin, int `[n, axes]`."""
    first = np.asarray(out["image"]).reshape(len(out["image"]), -1)[:, 0]
    return np.stack(np.unravel_index(np.round(first * np.prod(shape)).astype(int), shape), axis=1)


@pytest.mark.parametrize("shape", [(20, 13), (5, 20, 13)])
def test_a_patch_is_a_window_and_its_mask_the_same_window(shape):
    batch = batch_of(50, shape, marked=[tuple(n // 2 for n in shape)])
    out = quick(Augment(patch=9))(KEY, batch)
    window = window_of((*shape, 1), 9)
    assert window == (9, 9) if len(shape) == 2 else (5, 9, 9)
    assert out["image"].shape == (50, *window, 1) and out["mask"].shape == (50, *window)
    for i, start in enumerate(corners(out, shape)):
        part = tuple(slice(s, s + w) for s, w in zip(start, window, strict=True))
        np.testing.assert_array_equal(out["image"][i], batch["image"][i][part])
        np.testing.assert_array_equal(out["mask"][i], batch["mask"][i][part])


def test_places_are_uniform_and_as_often_as_asked_around_a_marked_pixel():
    shape = (16, 16)
    batch = batch_of(4000, shape, marked=[(0, 0), (12, 3)])
    seen = corners(quick(Augment(patch=8, patch_marked=0.5))(KEY, batch), shape)
    counts = {place: int((seen == place).all(axis=1).sum()) for place in ((0, 0), (8, 0), (4, 4))}
    # Half of the patches lie around one of two marked pixels, cut off at the border: (0, 0) and
    # (8, 0). The others are anywhere among 9 x 9 places, 25 each on average.
    for place, expected in (((0, 0), 1025), ((8, 0), 1025), ((4, 4), 25)):
        assert abs(counts[place] - expected) < 5 * np.sqrt(expected)
    nothing = corners(quick(Augment(patch=8))(KEY, batch_of(4000, shape)), shape)
    places, times = np.unique(nothing, axis=0, return_counts=True)
    assert len(places) == 81 and ((times - 4000 / 81) ** 2).sum() / (4000 / 81) < 125  # chi^2


def test_without_masks_a_patch_is_anywhere_and_shapes_are_checked():
    out = Augment(patch=8)(KEY, {"image": batch_of(3, (16, 16))["image"]})
    assert out["image"].shape == (3, 8, 8, 1) and "mask" not in out
    with pytest.raises(RecipeError, match=r"augment\.patch is 16"):
        Augment(patch=16).check((16, 16, 1))
    with pytest.raises(RecipeError, match="only 8 across"):
        Augment(patch=8, translate=9).check((16, 16, 1))
