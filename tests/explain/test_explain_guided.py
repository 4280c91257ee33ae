"""Guided backpropagation against NumPy, PyTorch, and all the ways to write a ReLU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import quick

from cnn_jax import models, nn
from cnn_jax.errors import ModelError
from cnn_jax.explain import gradient, guided_backpropagation

SHAPE = (3, 4, 3, 2)
TARGET = np.array([1, 0, 2], np.int32)


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


class TwoLayers(nn.Module):
    """Two hidden layers of 7 units, with the ReLU that is given."""

    activate: object = nn.relu
    scanned: bool = False
    again: bool = False

    @nn.compact
    def __call__(self, image):
        x = image.reshape(len(image), -1)
        x = self.activate(x @ self.param("first", nn.initializers.normal(1), (24, 7), x.dtype))
        second = self.param("second", nn.initializers.normal(1), (7, 7), x.dtype)
        layer = lambda x, w: self.activate(x @ w)  # noqa: E731
        if self.scanned:
            x, _ = jax.lax.scan(lambda x, w: (layer(x, w), None), x, second[None])
        else:
            x = (jax.checkpoint(layer) if self.again else layer)(x, second)
        return {"logits": x @ self.param("head", nn.initializers.normal(1), (7, 4), x.dtype)}


def weights(dtype):
    named = {"first": (24, 7), "second": (7, 7), "head": (7, 4)}
    return {
        name: jnp.asarray(draw(*s, seed=i + 1), dtype) for i, (name, s) in enumerate(named.items())
    }


def by_hand(x):
    first, second, head = (np.asarray(w, np.float64) for w in weights(jnp.float32).values())
    z1 = x.reshape(len(x), -1) @ first
    z2 = np.maximum(z1, 0) @ second
    back = np.maximum(head[:, TARGET].T, 0) * (z2 > 0)
    back = np.maximum(back @ second.T, 0) * (z1 > 0)
    return (back @ first.T).reshape(x.shape)


@pytest.mark.parametrize(("dtype", "atol"), [(np.float32, 1e-5), (np.float64, 1e-10)])
def test_two_layers_by_hand(dtype, atol):
    x = draw(*SHAPE)
    with jax.enable_x64(dtype == np.float64):
        named = jax.tree.map(lambda w: w.astype(dtype), weights(jnp.float32))
        run = quick(lambda v, x, t: guided_backpropagation(TwoLayers(), v, x, t))
        heat = run({"params": named}, jnp.asarray(x, dtype), TARGET)
        assert heat.dtype == dtype
        np.testing.assert_allclose(heat, by_hand(x), atol=atol)


@pytest.mark.parametrize(
    "options",
    [
        {"activate": jax.nn.relu},
        {"activate": lambda x: jnp.maximum(x, 0)},
        {"activate": lambda x: jnp.maximum(0.0, x)},
        {"activate": jax.jit(lambda x: nn.relu(x))},
        {"scanned": True},
        {"again": True},
    ],
)
def test_however_it_is_written(options):
    x = draw(*SHAPE)
    heat = guided_backpropagation(
        TwoLayers(**options), {"params": weights(jnp.float32)}, jnp.asarray(x, jnp.float32), TARGET
    )
    np.testing.assert_allclose(heat, by_hand(x), atol=1e-5)


class Mixed(nn.Module):
    """ReLU, and after it a softplus, whose trace has a max(x, 0) that is none."""

    @nn.compact
    def __call__(self, image):
        x = nn.relu(nn.Dense(6, name="first", use_bias=False)(image.reshape(len(image), -1)))
        return nn.Dense(4, name="head")(nn.softplus(nn.Dense(5, name="second")(x)))


def test_other_activations_keep_their_gradient():
    model, x = Mixed(), draw(*SHAPE)
    variables = model.init(jax.random.key(0), jnp.asarray(x, jnp.float32))
    heat = guided_backpropagation(model, variables, jnp.asarray(x, jnp.float32), TARGET)
    layers = variables["params"]
    first, second, head = (np.asarray(layers[n]["kernel"]) for n in ("first", "second", "head"))
    z = x.reshape(3, -1) @ first
    inner = np.maximum(z, 0) @ second
    back = (head[:, TARGET].T / (1 + np.exp(-inner))) @ second.T
    back = np.maximum(back, 0) * (z > 0)
    np.testing.assert_allclose(heat, (back @ first.T).reshape(SHAPE), atol=1e-5)


def test_where_nothing_is_negative_on_the_way_back_it_is_the_gradient():
    named = jax.tree.map(abs, weights(jnp.float32))
    x = jnp.asarray(draw(*SHAPE), jnp.float32)
    model = TwoLayers()
    plain = gradient(lambda x: model.apply({"params": named}, x)["logits"], x, TARGET)
    heat = guided_backpropagation(model, {"params": named}, x, TARGET)
    np.testing.assert_allclose(heat, plain, rtol=1e-5)


def test_a_network_of_ours():
    model = models.create("compact", num_classes=3, image_size=12, widths=(4, 8))
    x = jnp.asarray(draw(2, 12, 12, 3), jnp.float32)
    variables = models.initialize(model, jax.random.key(0), x.shape[1:])
    target = jnp.array([0, 2])
    guided, plain = quick(
        lambda v, x: (
            guided_backpropagation(model, v, x, target),
            gradient(lambda x: model.apply(v, x), x, target),
        )
    )(variables, x)
    assert guided.shape == x.shape and np.isfinite(guided).all()
    assert float(abs(guided - plain).max()) > 1e-3


def test_a_network_without_relus_is_refused():
    model, x = TwoLayers(activate=nn.tanh), jnp.asarray(draw(*SHAPE), jnp.float32)
    with pytest.raises(ModelError, match="TwoLayers has no ReLU, and nothing to guide"):
        guided_backpropagation(model, {"params": weights(jnp.float32)}, x, TARGET)
    with pytest.raises(ModelError, match="target 4 is no class"):
        guided_backpropagation(TwoLayers(), {"params": weights(jnp.float32)}, x, TARGET + 2)


@pytest.mark.parity
def test_it_is_that_of_pytorch():
    """A hook on each ReLU clamps what comes back, as it is usually done there."""
    torch = pytest.importorskip("torch")
    x = draw(*SHAPE)
    first, second, head = (torch.tensor(np.asarray(w)) for w in weights(jnp.float32).values())
    image = torch.tensor(x.astype(np.float32), requires_grad=True)
    relus = [torch.nn.ReLU(), torch.nn.ReLU()]
    for relu in relus:
        relu.register_full_backward_hook(lambda module, into, out: (into[0].clamp(min=0),))
    logits = relus[1](relus[0](image.reshape(3, -1) @ first) @ second) @ head
    logits[torch.arange(3), torch.tensor(TARGET, dtype=torch.long)].sum().backward()
    heat = guided_backpropagation(
        TwoLayers(), {"params": weights(jnp.float32)}, jnp.asarray(x, jnp.float32), TARGET
    )
    np.testing.assert_allclose(heat, image.grad.numpy(), atol=1e-5)
