import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn_jax import ops
from cnn_jax.errors import ModelError


def binomial(length):
    row = np.ones(1)
    for _ in range(length - 1):
        row = np.convolve(row, [0.5, 0.5])
    return row


@pytest.mark.parametrize(("mode", "scipys"), [("reflect", "mirror"), ("edge", "nearest")])
@pytest.mark.parametrize(("strides", "length"), [((2, 2), 3), ((1, 3), 5), ((2, 1), 7)])
def test_blur_pool_is_scipys_correlation_and_strides(mode, scipys, strides, length):
    x = np.random.default_rng(0).normal(size=(2, 9, 8, 3)).astype(np.float32)
    expected = np.float64(x)
    for axis in (1, 2):
        expected = scipy.ndimage.correlate1d(expected, binomial(length), axis, mode=scipys)
    expected = expected[:, :: strides[0], :: strides[1]]
    ours = ops.blur_pool(x, strides, length, mode)
    np.testing.assert_allclose(ours, expected, atol=1e-6)


@settings(max_examples=8, deadline=None)
@given(
    sizes=st.lists(st.integers(4, 7), min_size=1, max_size=3),
    stride=st.integers(1, 3),
    length=st.integers(1, 4),
    mode=st.sampled_from(["reflect", "edge"]),
)
def test_a_constant_image_stays_constant(sizes, stride, length, mode):
    y = ops.blur_pool(jnp.full((1, *sizes, 2), 0.7), stride, length, mode)
    assert y.shape == (1, *(-(-n // stride) for n in sizes), 2)
    np.testing.assert_allclose(y, 0.7, rtol=1e-6)


def test_zeros_around_darken_the_edge_and_nothing_else():
    y = ops.blur_pool(jnp.ones((1, 5, 1)), 2, 3, "constant")
    np.testing.assert_allclose(y.ravel(), [0.75, 1, 0.75])


def test_an_even_filter_pads_the_odd_position_after():
    x = jnp.asarray([1.0, 3.0, 9.0])[None, :, None]
    np.testing.assert_allclose(ops.blur_pool(x, 1, 2).ravel(), [2, 6, 6])


def test_blur_pool_keeps_bfloat16_and_has_a_gradient():
    x = jnp.ones((2, 1, 8, 8, 3), jnp.bfloat16)
    assert ops.blur_pool(x, (2, 2)).dtype == jnp.bfloat16
    gradient = jax.grad(lambda x: ops.blur_pool(x, (2, 2)).astype(jnp.float32).sum())(x)
    # Each output hands out weights that sum to 1.
    np.testing.assert_allclose(gradient.astype(jnp.float32).sum(), 2 * 4 * 4 * 3)


@pytest.mark.parametrize(
    ("shape", "arguments", "message"),
    [
        ((4, 3), (2,), "spatial axes"),
        ((1, 4, 4, 1), ((2, 0),), "1 or more"),
        ((1, 4, 4, 1), (2, 0), "1 or more"),
        ((1, 4, 4, 1), (2, 3, "wrap"), "'wrap' must be one of reflect"),
        ((1, 4, 2, 1), (2, 5), r"images \[4, 2\] are too small"),
    ],
)
def test_arguments_that_do_not_fit(shape, arguments, message):
    with pytest.raises(ModelError, match=message):
        ops.blur_pool(jnp.zeros(shape), *arguments)


def test_integers_are_refused():
    with pytest.raises(ModelError, match="uint8"):
        ops.blur_pool(jnp.zeros((1, 4, 4, 1), jnp.uint8), 2)
