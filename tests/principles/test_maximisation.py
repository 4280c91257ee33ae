"""Images made for units: a linear unit's is known, and others beat noise and all images."""

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.errors import ModelError
from cnn_jax.principles import maximise_activation


class Linear(linen.Module):
    @linen.compact
    def __call__(self, image, *, train=False):
        return linen.Dense(3, name="head")(image.reshape(len(image), -1))


class Net(linen.Module):
    @linen.compact
    def __call__(self, image, *, train=False):
        x = linen.relu(linen.Conv(6, (5, 5), name="first")(image))
        x = linen.relu(linen.Conv(8, (3, 3), strides=2, name="second")(x))
        return linen.Dense(3, name="head")(x.mean(axis=(1, 2)))


def test_of_a_linear_unit_pixels_go_where_the_weights_point():
    model = Linear()
    variables = model.init(jax.random.key(0), jnp.zeros((1, 6, 6, 1)))
    found = maximise_activation(
        model, variables, (6, 6, 1), "head", (2, 0), steps=400, learning_rate=0.2, shake=0
    )
    kernel = np.asarray(variables["params"]["head"]["kernel"])
    for number, unit in enumerate((2, 0)):
        # White where the weight is positive, else black.
        best = np.maximum(kernel[:, unit], 0).sum()
        assert found.values[number] > 0.97 * best
        assert found.values[number] <= best + 1e-5


@pytest.mark.heavy
def test_what_is_made_beats_noise_and_every_image_and_lies_in_range():
    rng = np.random.default_rng(0)
    images = rng.random((200, 16, 16, 3)).astype(np.float32)
    model = Net()
    variables = model.init(jax.random.key(1), images[:1])
    found = maximise_activation(
        model, variables, (16, 16, 3), "second", range(8), colours=images, steps=60
    )
    _, kept = model.apply(variables, images, capture_intermediates=True)
    best = np.asarray(kept["intermediates"]["second"]["__call__"][0]).max(axis=(0, 1, 2))
    assert (found.values > best).all() and (found.values > found.before).all()
    assert found.images.shape == (8, 16, 16, 3)
    assert found.images.min() >= 0 and found.images.max() <= 1
    _, kept = model.apply(variables, found.images, capture_intermediates=True)
    maps = np.asarray(kept["intermediates"]["second"]["__call__"][0]).max(axis=(1, 2))
    np.testing.assert_allclose(maps[range(8), range(8)], found.values, rtol=1e-4)


def test_colours_are_those_of_the_images():
    rng = np.random.default_rng(0)
    grey = np.repeat(rng.random((20, 8, 8, 1)), 3, axis=-1)
    model = Net()
    variables = model.init(jax.random.key(1), jnp.zeros((1, 8, 8, 3)))
    found = maximise_activation(
        model, variables, (8, 8, 3), "first", (0, 1), colours=grey, steps=60
    )
    assert np.ptp(found.images, axis=-1).max() < 0.02
    free = maximise_activation(model, variables, (8, 8, 3), "first", (0, 1), steps=60)
    assert np.ptp(free.images, axis=-1).max() > 0.2


def test_the_network_sees_what_preprocess_makes():
    model = Linear()
    variables = model.init(jax.random.key(0), jnp.zeros((1, 4, 4, 1)))
    upside_down = maximise_activation(
        model, variables, (4, 4, 1), "head", (1,), preprocess=lambda x: 1 - x, steps=300, shake=0,
        learning_rate=0.2,
    )  # fmt: skip
    weights = np.asarray(variables["params"]["head"]["kernel"])[:, 1]
    assert np.corrcoef(upside_down.images[0].ravel(), weights)[0, 1] < -0.8


def test_what_has_no_answer():
    model = Net()
    variables = model.init(jax.random.key(1), jnp.zeros((1, 8, 8, 3)))
    for at, units, options, message in [
        ("nowhere", (0,), {}, "no submodule 'nowhere'"),
        ("second", (8,), {}, "and no 8"),
        ("second", (), {}, "a unit at least"),
        ("second", (0,), {"steps": 0}, "a step"),
        ("second", (0,), {"colours": np.zeros((2, 4, 4, 1))}, "colours are of images"),
    ]:
        with pytest.raises(ModelError, match=message):
            maximise_activation(model, variables, (8, 8, 3), at, units, **options)
