import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import nn
from cnn_jax.errors import ModelError


def test_what_touches_no_convolution_is_flax_itself():
    ours = {"BatchNorm", "Conv", "ConvTranspose", "avg_pool", "max_pool"}
    shared = {name for name in nn.__all__ if hasattr(flax.linen, name)}
    assert {name for name in shared if getattr(nn, name) is not getattr(flax.linen, name)} == ours


def test_stochastic_depth_drops_whole_examples_and_keeps_the_mean():
    x = jnp.ones((4000, 2, 3))
    layer = nn.StochasticDepth(0.2, deterministic=False)
    y = np.asarray(layer.apply({}, x, rngs={"dropout": jax.random.key(0)}))
    per_example = y.reshape(4000, -1)
    assert (per_example == per_example[:, :1]).all()
    np.testing.assert_allclose(np.unique(y), [0, 1.25])
    # Five standard deviations of the mean of 4000 draws.
    assert abs(y.mean() - 1) < 5 * 1.25 * np.sqrt(0.2 * 0.8 / 4000)


def test_stochastic_depth_does_nothing_when_deterministic():
    x = jnp.ones((4, 2))
    np.testing.assert_array_equal(nn.StochasticDepth(0.9).apply({}, x, deterministic=True), x)


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_rates_outside_the_unit_interval_are_refused(rate):
    with pytest.raises(ModelError, match="less than 1"):
        nn.StochasticDepth(rate, deterministic=True).apply({}, jnp.ones((4, 2)))


def test_squeeze_excite_is_its_equation():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 4, 8)), jnp.float32)
    layer = nn.SqueezeExcite(reduction=4)
    variables = layer.init(jax.random.key(0), x)
    params = jax.tree.map(np.float64, variables["params"])
    pooled = np.float64(x).mean((1, 2))
    hidden = np.maximum(pooled @ params["reduce"]["kernel"] + params["reduce"]["bias"], 0)
    gate = 1 / (1 + np.exp(-(hidden @ params["expand"]["kernel"] + params["expand"]["bias"])))
    assert params["reduce"]["kernel"].shape == (8, 2)
    np.testing.assert_allclose(layer.apply(variables, x), x * gate[:, None, None], atol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_channel_prelu_is_its_equation(dtype):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 3, 4, 5)), dtype)
    layer = nn.ChannelPReLU()
    started = layer.init(jax.random.key(0), x)["params"]["negative_slope"]
    np.testing.assert_array_equal(started, np.full(5, 0.25, np.float32))
    slope = jnp.asarray(rng.choice([-0.5, 0.125, 2], 5), jnp.float32)  # exact in bfloat16
    y = layer.apply({"params": {"negative_slope": slope}}, x)
    assert y.dtype == dtype
    inputs = np.float64(x)
    expected = np.maximum(inputs, 0) + np.float64(slope) * np.minimum(inputs, 0)
    np.testing.assert_allclose(np.float64(y), expected, rtol=2**-8 if dtype != jnp.float32 else 0)


def test_channel_prelu_has_pytorchs_gradient_at_zero():
    def total(slope, x):
        return nn.ChannelPReLU().apply({"params": {"negative_slope": slope}}, x).sum()

    slope, x = jnp.asarray([0.5, 2.0]), jnp.asarray([[-3.0, 0.0], [0.0, 4.0]])
    of_slope, of_x = jax.grad(total, (0, 1))(slope, x)
    np.testing.assert_array_equal(of_slope, [-3, 0])
    np.testing.assert_array_equal(of_x, [[0.5, 2], [0.5, 1]])


def test_head_gives_float32_logits_of_the_mean():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 4, 8)), jnp.bfloat16)
    head = nn.ClassifierHead(5, dropout=0.5)
    variables = head.init(jax.random.key(0), x)
    dense = variables["params"]["logits"]
    logits = head.apply(variables, x)
    assert logits.dtype == jnp.float32
    expected = np.float64(x).mean((1, 2)) @ np.float64(dense["kernel"])
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    dropped = head.apply(variables, x, train=True, rngs={"dropout": jax.random.key(1)})
    assert np.abs(dropped - logits).max() > 0.01
