import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st
from small import quick

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
    ours = quick(lambda x: ops.blur_pool(x, strides, length, mode))(x)
    np.testing.assert_allclose(ours, expected, atol=1e-6)


axis_of = st.tuples(st.integers(1, 9), st.integers(1, 4))  # length and stride


@pytest.mark.heavy
@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    axes=st.lists(axis_of, min_size=1, max_size=2),
    length=st.integers(1, 6),
    mode=st.sampled_from(["reflect", "edge", "constant"]),
)
def test_any_sizes_and_the_adjoint(axes, length, mode):
    """Against numpy in float64; the gradient by <blur(x), y> = <x, gradient at y>."""
    low, high = (length - 1) // 2, length // 2
    if mode == "reflect" and min(n for n, _ in axes) <= high:
        return
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *(n for n, _ in axes), 3))
    expected = x
    for axis, (_, stride) in enumerate(axes, 1):
        edges = [(low, high) if i == axis else (0, 0) for i in range(x.ndim)]
        padded = np.pad(expected, edges, mode)
        windows = np.lib.stride_tricks.sliding_window_view(padded, length, axis)
        expected = np.moveaxis(windows @ binomial(length), axis, 0)[::stride]
        expected = np.moveaxis(expected, 0, axis)

    @quick  # one program a case: operation by operation there are dozens to compile
    def blurred_and_gradient(x, y):
        strides = tuple(stride for _, stride in axes)
        blurred, pull_back = jax.vjp(lambda x: ops.blur_pool(x, strides, length, mode), x)
        return blurred, pull_back(y)[0]

    y = rng.normal(size=expected.shape)
    with jax.enable_x64(True):
        blurred, gradient = blurred_and_gradient(jnp.asarray(x), jnp.asarray(y))
        np.testing.assert_allclose(blurred, expected, atol=1e-12)
        np.testing.assert_allclose((expected * y).sum(), (x * gradient).sum(), rtol=1e-10)


@settings(max_examples=8, deadline=None)
@given(
    sizes=st.lists(st.integers(4, 7), min_size=1, max_size=3),
    stride=st.integers(1, 3),
    length=st.integers(1, 4),
    mode=st.sampled_from(["reflect", "edge"]),
)
def test_a_constant_image_stays_constant(sizes, stride, length, mode):
    blurred = quick(lambda x: ops.blur_pool(x, stride, length, mode))
    y = blurred(np.full((1, *sizes, 2), 0.7, np.float32))
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
    assert quick(ops.blur_pool, static_argnums=1)(x, (2, 2)).dtype == jnp.bfloat16
    total = quick(jax.grad(lambda x: ops.blur_pool(x, (2, 2)).astype(jnp.float32).sum()))
    gradient = total(x)
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
