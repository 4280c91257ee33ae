import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import ops
from cnn_jax.errors import ModelError

CASES = [
    # shape, window, strides, padding
    ((2, 9, 3), (3,), (2,), "SAME"),
    ((2, 7, 8, 3), (2, 3), None, "VALID"),
    ((2, 7, 8, 3), (3, 3), (2, 2), ((1, 1), (0, 1))),
    ((2, 4, 5, 6, 2), (2, 2, 2), (2, 1, 2), "SAME"),
    ((7, 8, 3), (3, 3), (2, 2), "SAME"),  # no batch axis
    ((2, 3, 7, 8, 3), (3, 3), (2, 2), "VALID"),  # two batch axes
]


def images(shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.mark.parametrize(("shape", "window", "strides", "padding"), CASES)
def test_max_pool_is_flax(shape, window, strides, padding):
    x = images(shape)
    ours, theirs = (f(x, window, strides, padding) for f in (ops.max_pool, flax.linen.max_pool))
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("count_include_pad", [True, False])
@pytest.mark.parametrize(("shape", "window", "strides", "padding"), CASES)
def test_avg_pool_is_flax(shape, window, strides, padding, count_include_pad):
    x = images(shape)
    ours = ops.avg_pool(x, window, strides, padding, count_include_pad)
    # Flax divides by a NumPy integer, which strict promotion refuses.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        theirs = flax.linen.avg_pool(x, window, strides, padding, count_include_pad)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_gradients_of_pools_by_hand():
    x = jnp.asarray([[1.0, 3.0], [2.0, 0.0]])[None, :, :, None]
    largest = jax.grad(lambda x: ops.max_pool(x, (2, 2)).sum())(x)
    np.testing.assert_array_equal(largest[0, :, :, 0], [[0, 1], [0, 0]])
    mean = jax.grad(lambda x: ops.avg_pool(x, (2, 2)).sum())(x)
    np.testing.assert_array_equal(mean[0, :, :, 0], np.full((2, 2), 0.25))


def test_avg_pool_keeps_bfloat16():
    x = jnp.ones((1, 4, 4, 2), jnp.bfloat16)
    y = ops.avg_pool(x, (3, 3), (2, 2), "SAME", count_include_pad=False)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y.astype(jnp.float32), np.ones((1, 2, 2, 2)))


@pytest.mark.parametrize(
    ("shape", "arguments", "message"),
    [
        ((4, 4), ((2, 2),), "spatial axes"),
        ((1, 4, 4, 1), ((2, 2), (2,)), "one entry for each"),
        ((1, 4, 4, 1), ((2, 2), (2, 2), [(1, 1)]), "one entry for each"),
        ((1, 4, 4, 1), ((2, 2), (2, 2), "CAUSAL"), "'SAME', 'VALID'"),
    ],
)
def test_arguments_that_do_not_fit(shape, arguments, message):
    with pytest.raises(ModelError, match=message):
        ops.max_pool(jnp.zeros(shape), *arguments)


def test_integers_are_refused():
    with pytest.raises(ModelError, match="uint8"):
        ops.avg_pool(jnp.zeros((1, 4, 4, 1), jnp.uint8), (2, 2))


def test_convolution_is_the_sum_of_products():
    x, kernel = images((2, 5, 6, 4)), images((3, 2, 2, 6), seed=1)
    y = ops.conv_general_dilated(
        x,
        kernel,
        (2, 1),
        [(1, 0), (0, 1)],
        rhs_dilation=(1, 2),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=2,
    )
    padded = np.pad(np.float64(x), ((0, 0), (1, 0), (0, 1), (0, 0)))
    expected = np.zeros(y.shape)
    for n, i, j, k in np.ndindex(expected.shape):
        channels = slice(2 * (k // 3), 2 * (k // 3) + 2)
        window = padded[n, 2 * i : 2 * i + 3, j : j + 3 : 2, channels]
        expected[n, i, j, k] = (window * np.float64(kernel[..., k])).sum()
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
