"""Effective fields: the law of a stack of equal weights, and a gradient summed by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import nn
from cnn_jax.errors import ModelError
from cnn_jax.principles import effective_field, receptive_field


class Stack(nn.Module):
    """Convolutions 3x3, one after the other, without anything between."""

    depth: int
    channels: int = 1
    rectified: bool = False

    @nn.compact
    def __call__(self, image, *, train=False):
        x = image
        for n in range(self.depth):
            conv = nn.Conv(self.channels, (3, 3), padding="SAME", use_bias=False, name=f"conv{n}")
            x = nn.relu(conv(x)) if self.rectified else conv(x)
        return x


IMAGES = np.random.default_rng(0).normal(size=(4, 41, 41, 1)).astype(np.float32)


@pytest.mark.parametrize("depth", [4, 9])
def test_equal_weights_give_a_gaussian_that_grows_with_the_root_of_the_depth(depth):
    model = Stack(depth)
    ones = jax.tree.map(
        lambda leaf: jnp.full(leaf.shape, 1 / 9),
        jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.asarray(IMAGES))),
    )
    found = effective_field(model, ones, IMAGES, f"conv{depth - 1}")
    # A sum of `depth` uniform steps of -1, 0 or 1 has the variance 2/3 depth along each axis.
    sigma = np.sqrt(2 * depth / 3)
    spread = found.influence.sum(axis=0) @ (np.arange(41) - 20) ** 2 / found.influence.sum()
    assert np.sqrt(spread) == pytest.approx(sigma, rel=1e-4)
    # The nearest Gaussian is a little wider, and less so the deeper it is.
    assert found.sigma == pytest.approx([sigma] * 2, rel=0.2 / depth)
    assert found.centre == pytest.approx((20, 20), abs=1e-3) and found.r2 > 0.995
    field = receptive_field(model, ones, (41, 41, 1), f"conv{depth - 1}")
    could = field.pixels((20, 20), (41, 41))
    assert field.size == (2 * depth + 1,) * 2 and (found.influence[~could] == 0).all()
    assert found.area == (found.influence >= 0.0455).sum()
    assert found.share == pytest.approx(found.area / could.sum()) and found.share < 1


def test_channels_and_images_are_summed_in_squares():
    model = Stack(2, channels=3, rectified=True)
    images = IMAGES[:3, :15, :15]
    variables = model.init(jax.random.key(1), jnp.asarray(images))
    found = effective_field(model, variables, images, "conv1", position=(6, 9), draws=400)

    def one(image, channel):
        features = nn.tap(model, variables, image[np.newaxis], at=("conv1",))[1]["conv1"]
        return features[0, 6, 9, channel]

    gradients = [jax.grad(one)(jnp.asarray(image), c) for image in images for c in range(3)]
    energy = sum(np.asarray(gradient)[:, :, 0] ** 2 for gradient in gradients)
    wanted = np.sqrt(energy / energy.max())
    assert np.abs(found.influence - wanted).max() < 0.05  # of signs, 400 draws
    assert ((found.influence == 0) == (wanted == 0)).all()


def test_what_has_no_effective_field():
    model = Stack(2, rectified=True)
    variables = model.init(jax.random.key(1), jnp.asarray(IMAGES))
    with pytest.raises(ModelError, match="no submodule 'conv7'; did you mean 'conv"):
        effective_field(model, variables, IMAGES, "conv7")
    with pytest.raises(ModelError, match=r"it has no position \(50, 2\)"):
        effective_field(model, variables, IMAGES, "conv1", position=(50, 2))
    with pytest.raises(ModelError, match="one draw of signs at least"):
        effective_field(model, variables, IMAGES, "conv1", draws=0)
    dead = jax.tree.map(jnp.zeros_like, variables)
    with pytest.raises(ModelError, match=r"no pixel changes 'conv1' at .*: are its units dead"):
        effective_field(model, dead, IMAGES, "conv1")
