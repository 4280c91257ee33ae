"""Top patches: where a unit is highest, by looking at every position."""

import flax.linen as linen
import jax
import numpy as np
import pytest

from cnn_jax.errors import ModelError
from cnn_jax.principles import top_patches
from cnn_jax.principles.patches import cut


class Net(linen.Module):
    @linen.compact
    def __call__(self, image, *, train=False):
        x = linen.Conv(4, (3, 3), strides=2, name="first")(image)
        x = linen.relu(linen.Conv(5, (3, 3), name="second")(x))
        return linen.Dense(3, name="head")(x.mean(axis=(1, 2)))


@pytest.fixture(scope="module")
def made():
    images = np.random.default_rng(0).normal(size=(150, 12, 12, 2)).astype(np.float32)
    model = Net()
    return model, model.init(jax.random.key(0), images[:1]), images


def test_patches_are_the_highest_of_all_positions(made):
    model, variables, images = made
    found = top_patches(model, variables, images, "second", units=(3, 1), count=4)
    assert [each.unit for each in found] == [3, 1]
    _, kept = model.apply(variables, images, capture_intermediates=True)
    maps = np.asarray(kept["intermediates"]["second"]["__call__"][0])
    for each in found:
        highest = maps[..., each.unit].max(axis=(1, 2))
        order = np.argsort(-highest)[:4]
        np.testing.assert_array_equal(each.images, order)
        np.testing.assert_allclose(each.values, highest[order], rtol=1e-5)


def test_nothing_outside_its_box_moves_the_unit(made):
    model, variables, images = made
    (found,) = top_patches(model, variables, images, "second", units=(2,), count=3)
    for number, value, (top, bottom, left, right) in zip(
        found.images, found.values, found.boxes, strict=True
    ):
        assert bottom - top == right - left == 7  # 3 + (3 - 1) * 2
        other = images[number] * 0 + 5
        rows = slice(max(top, 0), min(bottom, 12))
        columns = slice(max(left, 0), min(right, 12))
        other[rows, columns] = images[number][rows, columns]
        _, kept = model.apply(variables, other[None], capture_intermediates=True)
        maps = np.asarray(kept["intermediates"]["second"]["__call__"][0])[0, ..., 2]
        assert np.isclose(maps, value, rtol=1e-5).any()


def test_features_without_positions_see_the_whole_image(made):
    model, variables, images = made
    found = top_patches(model, variables, images, "head", count=2)
    assert [each.unit for each in found] == [0, 1, 2]
    assert found[0].boxes.tolist() == [[0, 12, 0, 12]] * 2


def test_a_patch_over_the_border_is_filled_with_zeros():
    image = np.arange(1, 13).reshape(3, 4, 1)
    patch = cut(image, (-1, 2, 2, 5))
    assert patch[..., 0].tolist() == [[0, 0, 0], [3, 4, 0], [7, 8, 0]]
    np.testing.assert_array_equal(cut(image, (-3, 9, -2, 8)), image)
    assert not cut(image, (5, 7, 0, 2)).any()


def test_what_has_no_answer(made):
    model, variables, images = made
    for at, options, message in [
        ("nowhere", {}, "no submodule 'nowhere'"),
        ("second", {"units": (5,)}, "units 0 to 4"),
        ("second", {"count": 0}, "one patch at least"),
    ]:
        with pytest.raises(ModelError, match=message):
            top_patches(model, variables, images, at, **options)
    with pytest.raises(ModelError, match=r"\[N, H, W, C\]"):
        top_patches(model, variables, images[:0], "second")
