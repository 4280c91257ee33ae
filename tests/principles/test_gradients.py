"""Norms of gradients by hand, and backpropagation against finite differences."""

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import models
from cnn_jax.errors import ModelError
from cnn_jax.principles import cross_entropy, gradient_error, gradient_norms


class Net(linen.Module):
    @linen.compact
    def __call__(self, image, *, train=False):
        x = linen.Conv(4, (3, 3), name="first", param_dtype=image.dtype)(image)
        x = linen.BatchNorm(use_running_average=not train, name="norm")(x)
        x = linen.relu(x).mean(axis=(1, 2))
        return {"logits": linen.Dense(3, name="head", param_dtype=image.dtype)(x)}


@pytest.fixture(scope="module")
def made():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(6, 8, 8, 2)).astype(np.float32)
    model = Net()
    return model, model.init(jax.random.key(0), images), images, rng.integers(0, 3, 6)


def test_the_heads_gradient_is_that_of_the_formula(made):
    """(softmax - one hot) times the features, over the batch."""
    model, variables, images, labels = made
    found = gradient_norms(model, variables, images, labels)
    assert list(found) == ["first", "norm", "head"]
    outputs, kept = model.apply(variables, images, capture_intermediates=True)
    pooled = np.maximum(np.asarray(kept["intermediates"]["norm"]["__call__"][0]), 0).mean((1, 2))
    p = np.asarray(jax.nn.softmax(outputs["logits"]))
    error = (p - np.eye(3)[labels]) / len(labels)
    wanted = np.sqrt(((pooled.T @ error) ** 2).sum() + (error.sum(axis=0) ** 2).sum())
    assert found["head"].gradient == pytest.approx(wanted, rel=1e-5)
    kernel = variables["params"]["head"]["kernel"]
    assert found["head"].parameters == pytest.approx(np.linalg.norm(kernel), rel=1e-6)
    assert found["head"].count == 4 * 3 + 3
    relative = found["head"].gradient / found["head"].parameters
    assert found["head"].relative == pytest.approx(relative)


def test_a_layer_that_is_cut_off_has_none(made):
    model, variables, images, labels = made
    none = gradient_norms(model, variables, images, labels, loss=lambda outputs, _: jnp.float32(0))
    assert all(each.gradient == 0 for each in none.values())


def test_backpropagation_is_the_derivative(made):
    model, variables, images, labels = made

    def loss(variables):
        x = jnp.asarray(images, jnp.float64)
        return cross_entropy(model.apply(variables, x, train=False), jnp.asarray(labels))

    assert gradient_error(loss, variables) < 1e-8


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["compact", "lenet5"])
def test_registered_networks_compute_in_float64_and_their_derivatives_are_right(name):
    model = models.create(name, num_classes=3, image_size=16, dtype=jnp.float64)
    images = np.random.default_rng(0).normal(size=(2, 16, 16, 1))
    with jax.enable_x64(True):
        variables = model.init(jax.random.key(0), jnp.asarray(images))

        def loss(variables):
            logits = model.apply(variables, jnp.asarray(images), train=False)
            assert logits.dtype == jnp.float64
            return cross_entropy(logits, jnp.array([0, 2]))

        assert gradient_error(loss, variables, directions=2) < 1e-7


def test_a_wrong_derivative_is_told():
    @jax.custom_vjp
    def square(x):
        return (x**2).sum()

    square.defvjp(lambda x: (square(x), x), lambda x, g: (1.9 * x * g,))
    assert gradient_error(square, jnp.arange(1.0, 4)) > 0.03
    assert gradient_error(lambda x: (x**2).sum(), jnp.arange(1.0, 4)) < 1e-9
    assert gradient_error(lambda x: jnp.float64(0) * x.sum(), jnp.arange(1.0, 4)) == 0


def test_what_has_no_answer(made):
    _, variables, images, labels = made
    with pytest.raises(ModelError, match="no parameters"):
        gradient_norms(made[0], {"batch_stats": variables["batch_stats"]}, images, labels)
    with pytest.raises(ModelError, match="no floating array"):
        gradient_error(lambda x: x.sum(), jnp.arange(3))
    with pytest.raises(ModelError, match="a direction"):
        gradient_error(lambda x: x.sum(), jnp.arange(3.0), directions=0)
