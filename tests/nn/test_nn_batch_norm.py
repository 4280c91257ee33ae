import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from small import quick

from cnn_jax import nn
from cnn_jax.errors import ModelError


def images(shape, seed=0, mean=2.0):
    return jnp.asarray(np.random.default_rng(seed).normal(mean, 3.0, shape), jnp.float32)


def test_variance_survives_a_large_mean():
    x = images((64, 4, 4, 2), mean=30_000.0)
    layer = nn.BatchNorm(use_running_average=False, momentum=0.0)
    _, updates = layer.apply(layer.init(jax.random.key(0), x), x, mutable=["batch_stats"])
    exact = np.float64(x).var((0, 1, 2))
    np.testing.assert_allclose(updates["batch_stats"]["var"], exact, rtol=1e-3)
    fast = flax.linen.BatchNorm(use_running_average=False, momentum=0.0)
    _, updates = fast.apply(layer.init(jax.random.key(0), x), x, mutable=["batch_stats"])
    assert np.abs(updates["batch_stats"]["var"] / exact - 1).max() > 0.1  # why we differ


@pytest.mark.parametrize("dtype", [None, jnp.bfloat16])
@pytest.mark.parametrize("use_running_average", [False, True])
def test_values_are_those_of_flax(use_running_average, dtype):
    x = images((8, 3, 3, 4)).astype(jnp.float32 if dtype is None else dtype)
    mask = jnp.arange(8).reshape(8, 1, 1, 1) < 5
    fields = {"use_running_average": use_running_average, "use_fast_variance": False}
    ours, theirs = nn.BatchNorm(dtype=dtype, **fields), flax.linen.BatchNorm(dtype=dtype, **fields)
    variables = ours.init(jax.random.key(0), x)
    y, updates = ours.apply(variables, x, mask=mask, mutable=["batch_stats"])
    with jax.numpy_dtype_promotion("standard"):
        expected = theirs.apply(variables, x, mask=mask, mutable=["batch_stats"])
    assert y.dtype == expected[0].dtype == x.dtype
    np.testing.assert_array_equal(y.astype(jnp.float32), expected[0].astype(jnp.float32))
    jax.tree.map(np.testing.assert_array_equal, updates, expected[1])
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(updates))


def test_statistics_of_a_sharded_batch_are_global():
    assert jax.device_count() == 2
    x = jnp.concatenate([images((4, 3, 3, 2)), images((4, 3, 3, 2), mean=50.0)])
    layer = nn.BatchNorm(use_running_average=False)
    variables = layer.init(jax.random.key(0), x)
    apply = jax.jit(lambda x: layer.apply(variables, x, mutable=["batch_stats"]))
    sharding = NamedSharding(Mesh(np.array(jax.devices()), "batch"), PartitionSpec("batch"))
    y, updates = apply(jax.device_put(x, sharding))
    expected = np.float64(x).mean((0, 1, 2)) * 0.01
    np.testing.assert_allclose(updates["batch_stats"]["mean"], expected, rtol=1e-5)
    np.testing.assert_allclose(y, apply(x)[0], atol=1e-5)


class Branch(flax.linen.Module):
    norm: type

    @flax.linen.compact
    def __call__(self, x, train):
        x = self.norm(use_running_average=not train)(x)
        return jnp.tanh(flax.linen.Dense(3)(x))


LIFTED = {
    "plain": Branch,
    "remat": flax.linen.remat(Branch, static_argnums=(2,)),
}


class Nested(flax.linen.Module):
    norm: type
    lift: str

    @flax.linen.compact
    def __call__(self, x, train):
        x = x + LIFTED[self.lift](self.norm, name="branch")(x, train)
        return self.norm(name="last")(x, use_running_average=not train)


def loss_gradient_and_statistics(model, variables, x, valid):
    def loss(params):
        y, updates = model.apply({**variables, "params": params}, x, True, mutable=["batch_stats"])
        return jnp.sum(y**3 * valid.astype(y.dtype)[:, None]), updates

    return jax.value_and_grad(loss, has_aux=True)(variables["params"])


@pytest.mark.parametrize("lift", list(LIFTED))
@pytest.mark.parametrize("norm", [nn.BatchNorm, flax.linen.BatchNorm])
def test_padded_rows_never_count(norm, lift):
    model, x = Nested(norm, lift), images((5, 3))
    variables = quick(model.init, static_argnums=2)(jax.random.key(0), x, True)
    alone = quick(lambda x: loss_gradient_and_statistics(model, variables, x, jnp.ones(5, bool)))
    expected = alone(x)

    @quick
    def masked(x, valid):
        with nn.mask_padding(valid):
            return loss_gradient_and_statistics(model, variables, x, valid)

    padded = jnp.concatenate([x[:2], images((3, 3), 1, mean=99.0), x[2:]])
    valid = jnp.asarray([True, True, False, False, False, True, True, True])
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)  # noqa: E731
    jax.tree.map(close, masked(padded, valid), expected)
    # A batch of nothing but padding changes no statistic, and no NaN appears.
    (total, updates), gradient = masked(padded, jnp.zeros(8, bool))
    jax.tree.map(np.testing.assert_array_equal, updates["batch_stats"], variables["batch_stats"])
    assert total == 0 and all((leaf == 0).all() for leaf in jax.tree.leaves(gradient))


def test_the_callers_own_mask_is_kept():
    layer, x = nn.BatchNorm(use_running_average=False, momentum=0.0), images((4, 2))
    variables = layer.init(jax.random.key(0), x)
    with nn.mask_padding(jnp.asarray([True, False, False, False])):
        mask = jnp.asarray([[False], [False], [True], [True]])
        _, updates = layer.apply(variables, x, mask=mask, mutable=["batch_stats"])
    np.testing.assert_allclose(updates["batch_stats"]["mean"], np.mean(x[2:], 0), rtol=1e-6)


def test_inference_under_mask_padding_uses_the_running_statistics():
    layer, x = nn.BatchNorm(use_running_average=True), images((4, 2))
    variables = layer.init(jax.random.key(0), x)
    with nn.mask_padding(jnp.asarray([True, False, False, False])):
        np.testing.assert_array_equal(layer.apply(variables, x), layer.apply(variables, x))
        np.testing.assert_allclose(layer.apply(variables, x), x, rtol=1e-4)


def test_a_module_that_caches_its_trace_is_refused():
    layer, x = flax.linen.jit(nn.BatchNorm)(use_running_average=False), images((6, 2))
    variables = layer.init(jax.random.key(0), x)
    with pytest.raises(ModelError, match="jit the function"), nn.mask_padding(jnp.ones(6, bool)):
        layer.apply(variables, x, mutable=["batch_stats"])


def test_rows_that_are_not_the_batch_are_refused():
    layer, x = nn.BatchNorm(use_running_average=False), images((6, 2))
    variables = layer.init(jax.random.key(0), x)
    with (
        pytest.raises(ModelError, match="mask_padding was given 3 rows"),
        nn.mask_padding(jnp.ones(3, bool)),
    ):
        layer.apply(variables, x, mutable=["batch_stats"])
    with pytest.raises(ModelError, match="must be bool"), nn.mask_padding(jnp.ones(6)):
        pass
