"""Sharing: the matrix, the gradient and the counts, each against the layers themselves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from cnn_jax import nn
from cnn_jax.errors import ModelError
from cnn_jax.principles import convolution_matrix, costs


@settings(max_examples=12, deadline=None)
@given(
    st.tuples(st.integers(3, 6), st.integers(3, 6)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(1, 2), st.integers(1, 2)),
    st.sampled_from(["SAME", "VALID"]),
)
def test_a_convolution_is_its_block_toeplitz_matrix(shape, size, strides, padding):
    rng = np.random.default_rng(0)
    kernel, image = rng.normal(size=(*size, 2, 3)), rng.normal(size=(*shape, 2))
    conv = nn.Conv(3, size, strides=strides, padding=padding, use_bias=False)
    variables = {"params": {"kernel": jnp.asarray(kernel, jnp.float32)}}
    wanted = conv.apply(variables, jnp.asarray(image[np.newaxis], jnp.float32))[0]
    matrix = convolution_matrix(kernel, image.shape, strides=strides, padding=padding)
    np.testing.assert_allclose(matrix @ image.ravel(), np.ravel(wanted), atol=1e-5)
    # as many numbers as the kernel has, whatever the size of the matrix
    assert len(np.unique(matrix[matrix != 0])) <= kernel.size


def test_the_rows_of_a_circular_one_would_be_moved_on():
    kernel = np.arange(1.0, 4).reshape(1, 3, 1, 1)
    matrix = convolution_matrix(kernel, (1, 5))
    np.testing.assert_array_equal(matrix[2], [0, 1, 2, 3, 0])
    for row in range(1, 5):  # Toeplitz: every diagonal is constant
        np.testing.assert_array_equal(matrix[row, 1:], matrix[row - 1, :-1])


def test_a_shared_gradient_is_the_sum_over_positions():
    rng = np.random.default_rng(1)
    image = jnp.asarray(rng.normal(size=(2, 6, 5, 2)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(3, 3, 2, 4)), jnp.float32)
    weights = jnp.asarray(rng.normal(size=(2, 4, 3, 4)), jnp.float32)  # of a loss

    def shared(kernel):
        conv = nn.Conv(4, (3, 3), padding="VALID", use_bias=False)
        return (weights * conv.apply({"params": {"kernel": kernel}}, image)).sum()

    def local(kernels):
        output = lax.conv_general_dilated_local(
            image, kernels, (1, 1), "VALID", (3, 3), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return (weights * output).sum()

    # Locally connected kernels [h', w', C 3 3, D], the channel first, tied to one value.
    tied = jnp.broadcast_to(kernel.transpose(2, 0, 1, 3).reshape(18, 4), (4, 3, 18, 4))
    # sums of some thousand products of order 1, which cancel
    np.testing.assert_allclose(local(tied), shared(kernel), atol=1e-4)
    summed = jax.grad(local)(tied).sum(axis=(0, 1)).reshape(2, 3, 3, 4).transpose(1, 2, 0, 3)
    np.testing.assert_allclose(jax.grad(shared)(kernel), summed, rtol=1e-4, atol=1e-5)


def test_costs_are_what_the_layers_have():
    found = costs((8, 6, 3), 5, (3, 3), strides=(2, 1))
    image = jnp.zeros((1, 8, 6, 3))
    conv = nn.Conv(5, (3, 3), strides=(2, 1), use_bias=False)
    output, variables = conv.init_with_output(jax.random.key(0), image)
    assert found["convolution"].parameters == variables["params"]["kernel"].size
    positions = output.shape[1] * output.shape[2]
    assert found["locally connected"].parameters == positions * 3 * 3 * 3 * 5
    assert found["dense"].parameters == image.size * output.size
    assert found["convolution"].multiply_adds == found["locally connected"].parameters
    # 32 x 32 x 3 to 64 maps: what the article says, in numbers
    first = costs((32, 32, 3), 64, (3, 3))
    assert first["convolution"].parameters == 1_728
    assert first["locally connected"].parameters == 1_024 * 1_728
    assert first["dense"].parameters == 32 * 32 * 3 * 32 * 32 * 64


def test_what_makes_no_layer():
    for shape, size, options, message in [
        ((4, 4, 1), (5, 1), {"padding": "VALID"}, "does not fit into 4 pixels"),
        ((4, 4, 1), (3, 3), {"padding": "CIRCULAR"}, "must be SAME or VALID"),
        ((4, 4, 0), (3, 3), {}, "one at least of each"),
        ((4, 4, 1), (3, 3), {"strides": (0, 1)}, "must be 1 or more"),
    ]:
        with pytest.raises(ModelError, match=message):
            costs(shape, 2, size, **options)
    with pytest.raises(ModelError, match=r"is no \[h, w, C, D\] for images \[4, 4, 3\]"):
        convolution_matrix(np.zeros((3, 3, 2, 2)), (4, 4, 3))
