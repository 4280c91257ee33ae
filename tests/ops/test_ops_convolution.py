import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import ops
from cnn_jax.errors import ModelError


def images(shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


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


def test_depthwise_is_each_channel_by_itself():
    x, kernel = images((2, 7, 8, 3)), images((3, 2, 1, 6), seed=1)
    y = ops.depthwise_conv(x, kernel, 2, [(1, 0), (0, 1)], kernel_dilation=(1, 2))
    for channel in range(6):
        alone = ops.conv_general_dilated(
            x[..., channel // 2, None],
            kernel[..., channel, None],
            (2, 2),
            [(1, 0), (0, 1)],
            rhs_dilation=(1, 2),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        np.testing.assert_allclose(y[..., channel], alone[..., 0], rtol=1e-5, atol=1e-5)


def test_depthwise_of_other_axes():
    with pytest.raises(ModelError, match=r"not \[2, 5, 6\] and \[3, 3, 1, 6\]"):
        ops.depthwise_conv(jnp.zeros((2, 5, 6)), jnp.zeros((3, 3, 1, 6)))


@pytest.mark.parametrize("name", ["lhs_dilation", "rhs_dilation"])
def test_dilation_needs_an_entry_for_each_axis(name):
    """Which lax finds out when the program is lowered, in words of its own."""
    x, kernel = jnp.zeros((2, 5, 6, 4)), jnp.zeros((3, 3, 4, 6))
    with pytest.raises(ModelError, match=rf"{name} \(2,\) .* 2 spatial axes"):
        ops.conv_general_dilated(
            x,
            kernel,
            (1, 1),
            [(1, 1), (1, 1)],
            **{name: (2,)},
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
