"""Layers in the order of their calls, and what their weights would be without sharing."""

import flax.linen as linen
import jax
import jax.numpy as jnp
import pytest

from cnn_jax import models, nn
from cnn_jax.principles import costs
from cnn_jax.principles.layers import layers, main_layers


class Net(linen.Module):
    """Called in another order than that of the names; one layer twice."""

    @linen.compact
    def __call__(self, image, *, train=False):
        x = nn.Conv(4, (5, 3), strides=(2, 2), name="z")(image)
        twice = nn.Conv(4, (3, 3), name="m")
        x = twice(nn.relu(twice(x)))
        x = nn.Conv(6, (3, 3), feature_group_count=2, name="b")(x)
        x = nn.ConvTranspose(2, (2, 2), strides=(2, 2), name="a")(x)
        return nn.Dense(3, name="head")(x.mean(axis=(1, 2)))


def _shapes(model, shape):
    return jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, *shape))))


def test_calls_come_in_order_with_their_shapes():
    found = layers(Net(), _shapes(Net(), (8, 6, 2)), (8, 6, 2))
    assert [layer.path for layer in found] == ["z", "m", "m#1", "b", "a", "head"]
    assert [layer.outputs for layer in found[:2]] == [(4, 3, 4), (4, 3, 4)]
    assert found[-2].outputs == (8, 6, 2) and found[-1].inputs == (2,)
    assert [layer.convolves for layer in found] == [True] * 5 + [False]
    assert found[-1].costs() == {}


def test_costs_are_those_of_the_rule():
    found = {layer.path: layer for layer in layers(Net(), _shapes(Net(), (8, 6, 2)), (8, 6, 2))}
    wanted = costs((8, 6, 2), 4, (5, 3), strides=(2, 2))
    assert found["z"].costs() == wanted
    assert found["b"].costs()["convolution"].parameters == 3 * 3 * 2 * 6
    # Each of 4 x 3 positions of the input gives a window of 2 x 2 x 2.
    transposed = found["a"].costs()["convolution"]
    assert transposed.parameters == 2 * 2 * 6 * 2
    assert transposed.multiply_adds == 4 * 3 * 2 * 2 * 6 * 2


@pytest.mark.parametrize("name", ["compact", "resnet18", "mobilefacenet"])
def test_convolutions_of_registered_models_hold_their_parameters(name):
    model = models.create(name, num_classes=10, image_size=32)
    shapes = _shapes(model, (32, 32, 3))
    found = layers(model, shapes, (32, 32, 3))
    kernels = [leaf.size for leaf in jax.tree.leaves(shapes["params"]) if leaf.ndim == 4]
    convolutions = [layer for layer in found if layer.convolves]
    assert sorted(each.costs()["convolution"].parameters for each in convolutions) == sorted(
        kernels
    )
    assert main_layers(found)[-1].outputs == (10,) or name == "mobilefacenet"


def test_a_wrapper_is_looked_into():
    class Wrapped(linen.Module):
        @linen.compact
        def __call__(self, image, *, train=False):
            return Net(name="inner")(image)

    found = layers(Wrapped(), _shapes(Wrapped(), (8, 6, 2)), (8, 6, 2))
    assert [layer.path for layer in main_layers(found)][:2] == ["inner/z", "inner/m"]
    assert len(main_layers(found)) == 7
