import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import nn
from cnn_jax.errors import ModelError


def images(shape, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), dtype)


def assert_same_as_flax(ours, theirs, x):
    """The same tree of variables, and outputs that differ by rounding only."""
    shapes, expected_shapes = (
        jax.eval_shape(module.init, jax.random.key(1), x) for module in (ours, theirs)
    )
    assert shapes == expected_shapes
    variables = jax.tree.map(lambda s: images(s.shape, s.dtype), shapes)
    y, expected = ours.apply(variables, x), theirs.apply(variables, x)
    assert y.dtype == expected.dtype
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["Conv", "ConvTranspose"])
def test_initial_values_are_those_of_flax_bit_for_bit(name):
    x = images((1, 5, 5, 3))
    ours, theirs = (
        getattr(library, name)(4, (3, 3)).init(jax.random.key(1), x) for library in (nn, flax.linen)
    )
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


CONV_CASES = [
    # input shape, fields
    ((2, 9, 3), {"kernel_size": 3, "padding": "CAUSAL", "kernel_dilation": 2}),
    ((2, 9, 3), {"kernel_size": (4,), "strides": 2, "padding": "VALID"}),
    ((2, 7, 8, 3), {"kernel_size": (3, 3), "strides": (2, 1)}),
    ((2, 7, 8, 3), {"kernel_size": (3, 2), "padding": "CIRCULAR", "use_bias": False}),
    ((2, 7, 8, 3), {"kernel_size": (3, 4), "padding": "REFLECT", "kernel_dilation": (2, 1)}),
    ((2, 7, 8, 3), {"kernel_size": (3, 3), "padding": 1, "input_dilation": 2, "strides": None}),
    ((2, 7, 8, 4), {"kernel_size": (3, 3), "padding": [(1, 0), 2], "feature_group_count": 2}),
    ((2, 4, 5, 6, 2), {"kernel_size": (2, 3, 3), "strides": (1, 2, 2)}),
    ((7, 8, 3), {"kernel_size": (3, 3)}),  # no batch axis
    ((2, 3, 7, 8, 3), {"kernel_size": (3, 3), "padding": "VALID"}),  # two batch axes
]


@pytest.mark.parametrize(("shape", "fields"), CONV_CASES)
def test_conv_is_flax(shape, fields):
    assert_same_as_flax(nn.Conv(6, **fields), flax.linen.Conv(6, **fields), images(shape))


TRANSPOSE_CASES = [
    ((2, 5, 3), {"kernel_size": 3}),
    ((2, 5, 6, 3), {"kernel_size": (3, 2), "strides": (2, 2)}),
    ((2, 5, 6, 3), {"kernel_size": (2, 5), "strides": (3, 2), "padding": "VALID"}),
    ((2, 5, 6, 3), {"kernel_size": (3, 3), "strides": (2, 1), "kernel_dilation": (1, 2)}),
    ((2, 5, 6, 3), {"kernel_size": (4, 3), "strides": (2, 2), "padding": "CIRCULAR"}),
    ((2, 5, 6, 3), {"kernel_size": (4, 4), "padding": "CIRCULAR", "transpose_kernel": True}),
    ((2, 5, 6, 3), {"kernel_size": (3, 3), "padding": (1, (0, 2)), "transpose_kernel": True}),
    ((2, 3, 4, 5, 2), {"kernel_size": (2, 2, 2), "strides": (2, 2, 2), "use_bias": False}),
    ((5, 6, 3), {"kernel_size": (3, 3), "strides": (2, 2)}),  # no batch axis
]


@pytest.mark.parametrize(("shape", "fields"), TRANSPOSE_CASES)
def test_conv_transpose_is_flax(shape, fields):
    ours, theirs = nn.ConvTranspose(4, **fields), flax.linen.ConvTranspose(4, **fields)
    assert_same_as_flax(ours, theirs, images(shape))


def test_conv_transpose_is_the_gradient_of_conv():
    x, y = images((1, 6, 6, 3)), images((1, 3, 3, 4))
    conv = nn.Conv(4, (3, 3), strides=2, use_bias=False)
    variables = conv.init(jax.random.key(0), x)
    _, pull_back = jax.vjp(lambda x: conv.apply(variables, x), x)
    transposed = nn.ConvTranspose(3, (3, 3), (2, 2), use_bias=False, transpose_kernel=True)
    # SAME pads a stride of 2 on the right only, which the transposed one mirrors.
    np.testing.assert_allclose(transposed.apply(variables, y), pull_back(y)[0], atol=1e-5)


@pytest.mark.parametrize("name", ["Conv", "ConvTranspose"])
def test_masks_and_dtypes_are_flax(name):
    mask = jnp.tril(jnp.ones((3, 4)))[None, None] * jnp.ones((3, 3, 1, 1))
    fields = {"features": 4, "kernel_size": (3, 3), "mask": mask, "dtype": jnp.bfloat16}
    ours, theirs = getattr(nn, name)(**fields), getattr(flax.linen, name)(**fields)
    assert_same_as_flax(ours, theirs, images((2, 5, 5, 3)))


@pytest.mark.parametrize("name", ["Conv", "ConvTranspose", "BatchNorm"])
def test_fields_are_those_of_flax(name):
    def fields(module):
        return [f.name for f in module.__dataclass_fields__.values()]

    deprecated = {"conv_general_dilated", "conv_general_dilated_cls"}
    theirs = [field for field in fields(getattr(flax.linen, name)) if field not in deprecated]
    assert fields(getattr(nn, name)) == theirs


def test_depthwise_conv_keeps_channels_apart():
    x = images((2, 6, 6, 3))
    layer = nn.DepthwiseConv((3, 3), channel_multiplier=2)
    variables = layer.init(jax.random.key(0), x)
    grouped = flax.linen.Conv(6, (3, 3), feature_group_count=3)
    np.testing.assert_allclose(layer.apply(variables, x), grouped.apply(variables, x), atol=1e-6)
    changed = x.at[..., 0].add(1.0)
    difference = layer.apply(variables, changed) - layer.apply(variables, x)
    assert np.abs(difference[..., :2]).max() > 0.01
    np.testing.assert_array_equal(difference[..., 2:], np.zeros((2, 6, 6, 4)))


def test_separable_conv_is_one_convolution_of_the_product_kernel():
    x = images((2, 6, 6, 3))
    layer = nn.SeparableConv(5, (3, 3), strides=2, channel_multiplier=2)
    variables = layer.init(jax.random.key(0), x)
    depthwise = variables["params"]["depthwise"]["kernel"].reshape(3, 3, 3, 2)
    pointwise = variables["params"]["pointwise"]["kernel"].reshape(3, 2, 5)
    kernel = jnp.einsum("hwcm,cmo->hwco", depthwise, pointwise)
    full = nn.Conv(5, (3, 3), strides=2, use_bias=False)
    np.testing.assert_allclose(
        layer.apply(variables, x), full.apply({"params": {"kernel": kernel}}, x), atol=1e-5
    )


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (nn.Conv(4, (3, 3), feature_group_count=2), (1, 5, 5, 3), "divisible"),
        (nn.Conv(4, (3, 3), padding="MIRROR"), (1, 5, 5, 3), "'MIRROR' must be one of SAME"),
        (nn.Conv(4, (3, 3), padding="CAUSAL"), (1, 5, 5, 3), "one spatial axis"),
        (nn.Conv(4, (3, 3), strides=(2,)), (1, 5, 5, 3), "one entry for each of 2"),
        (nn.Conv(4, (3, 3)), (5, 3), "not \\[5, 3\\]"),
        (nn.Conv(4, (3, 3), mask=np.ones((3, 3))), (1, 5, 5, 3), "kernel's shape"),
        (nn.ConvTranspose(4, (3, 3), padding="REFLECT"), (1, 5, 5, 3), "'REFLECT' must be"),
    ],
)
def test_what_does_not_fit_is_refused(layer, shape, message):
    with pytest.raises(ModelError, match=message):
        layer.init(jax.random.key(0), jnp.zeros(shape))
