"""Convolutions, with the fields, defaults and variables of Flax's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen
from jax import lax

from cnn_jax import ops
from cnn_jax.errors import ModelError
from cnn_jax.nn.padding import PaddingLike, pad_or_pass, same_for_all_axes

Initializer = jax.nn.initializers.Initializer
lecun_normal = jax.nn.initializers.lecun_normal()
zeros = jax.nn.initializers.zeros


class Conv(linen.Module):
    """Convolution of `[..., spatial axes, C]` with a kernel shared by all positions.

    The fields are those of `flax.linen.Conv`, less its two deprecated ones that choose the
    algorithm: here `cnn_jax.ops` chooses it. Variables: `kernel` `[*kernel_size, C //
    feature_group_count, features]` and `bias` `[features]`.

    Attributes:
      features: number of output channels.
      kernel_size: length of the kernel along each spatial axis; one number means one axis.
      strides: step along each axis, or one for all.
      padding: `SAME`, `VALID`, `CIRCULAR`, `REFLECT`, `CAUSAL` (one axis only), a number, or
        a number or (low, high) pair for each axis.
      input_dilation: spread of the input, along each axis or for all.
      kernel_dilation: spread of the kernel, along each axis or for all.
      feature_group_count: groups of channels that do not mix.
      use_bias: whether a bias is added.
      mask: array of the kernel's shape that it is multiplied by, or None.
      dtype: dtype of the computation; by default that of input and parameters together.
      param_dtype: dtype of the parameters.
      precision: `jax.lax.Precision` of the products.
      kernel_init, bias_init: initializers.
      promote_dtype: brings input, kernel and bias to one dtype.

    Raises:
      ModelError: the input, the groups, the padding or the mask do not fit (when called).
    """

    features: int
    kernel_size: int | Sequence[int]
    strides: int | Sequence[int] | None = 1
    padding: PaddingLike = "SAME"
    input_dilation: int | Sequence[int] | None = 1
    kernel_dilation: int | Sequence[int] | None = 1
    feature_group_count: int = 1
    use_bias: bool = True
    mask: jax.Array | None = None
    dtype: Any = None
    param_dtype: Any = jnp.float32
    precision: lax.PrecisionLike = None
    kernel_init: Initializer = lecun_normal
    bias_init: Initializer = zeros
    promote_dtype: Any = linen.dtypes.promote_dtype

    @linen.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Convolve `[..., spatial axes, C]`; any number of leading axes, none included."""
        kernel_size = as_kernel_size(self.kernel_size)
        rank = len(kernel_size)
        groups = self.feature_group_count
        channels = check_channels(inputs, rank)
        if channels % groups or self.features % groups:
            raise ModelError(
                f"{channels} input channels and {self.features} features must both be divisible "
                f"by feature_group_count={groups}"
            )
        kernel = masked_kernel(self, (*kernel_size, channels // groups, self.features))
        bias = (
            self.param("bias", self.bias_init, (self.features,), self.param_dtype)
            if (self.use_bias)
            else None
        )
        x, kernel, bias = self.promote_dtype(inputs, kernel, bias, dtype=self.dtype)

        kernel_dilation = same_for_all_axes(self.kernel_dilation, rank)
        x = x.reshape(-1, *x.shape[-rank - 1 :])
        x, padding = pad_or_pass(x, self.padding, kernel_size, kernel_dilation)
        y = ops.conv_general_dilated(
            x,
            kernel,
            same_for_all_axes(self.strides, rank),
            padding,
            lhs_dilation=same_for_all_axes(self.input_dilation, rank),
            rhs_dilation=kernel_dilation,
            dimension_numbers=channels_last(rank),
            feature_group_count=groups,
            precision=self.precision,
        )
        return add_bias(y, bias).reshape(*inputs.shape[: -rank - 1], *y.shape[1:])


class DepthwiseConv(linen.Module):
    """A convolution of each channel by itself; no channels mix.

    The variables are those of a `Conv` with as many groups as channels: `kernel`
    `[*kernel_size, 1, C * channel_multiplier]` and `bias` `[C * channel_multiplier]`.

    Attributes:
      kernel_size, strides, padding, kernel_dilation, use_bias, dtype, param_dtype, precision,
        kernel_init, bias_init: as in `Conv`.
      channel_multiplier: output channels for each input channel.
    """

    kernel_size: int | Sequence[int]
    strides: int | Sequence[int] | None = 1
    padding: PaddingLike = "SAME"
    kernel_dilation: int | Sequence[int] | None = 1
    channel_multiplier: int = 1
    use_bias: bool = True
    dtype: Any = None
    param_dtype: Any = jnp.float32
    precision: lax.PrecisionLike = None
    kernel_init: Initializer = lecun_normal
    bias_init: Initializer = zeros

    @linen.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Convolve `[..., spatial axes, C]` to `[..., spatial axes, C * channel_multiplier]`."""
        channels = inputs.shape[-1]
        conv = Conv(
            features=channels * self.channel_multiplier,
            kernel_size=self.kernel_size,
            strides=self.strides,
            padding=self.padding,
            kernel_dilation=self.kernel_dilation,
            feature_group_count=channels,
            use_bias=self.use_bias,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            precision=self.precision,
            kernel_init=self.kernel_init,
            bias_init=self.bias_init,
        )
        linen.share_scope(self, conv)
        return conv(inputs)


class SeparableConv(linen.Module):
    """A depthwise convolution (`depthwise`), then a 1x1 one (`pointwise`).

    Without a bias, a nonlinearity or a norm in between (Chollet 2017, Xception).

    Attributes:
      features: number of output channels.
      kernel_size, strides, padding, kernel_dilation: of the depthwise convolution.
      channel_multiplier: channels between the two, for each input channel.
      use_bias: whether the pointwise convolution has a bias.
      dtype, param_dtype, precision, kernel_init, bias_init: as in `Conv`.
    """

    features: int
    kernel_size: int | Sequence[int]
    strides: int | Sequence[int] | None = 1
    padding: PaddingLike = "SAME"
    kernel_dilation: int | Sequence[int] | None = 1
    channel_multiplier: int = 1
    use_bias: bool = True
    dtype: Any = None
    param_dtype: Any = jnp.float32
    precision: lax.PrecisionLike = None
    kernel_init: Initializer = lecun_normal
    bias_init: Initializer = zeros

    @linen.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Convolve `[..., spatial axes, C]` to `[..., spatial axes, features]`."""
        shared: dict[str, Any] = {
            "dtype": self.dtype,
            "param_dtype": self.param_dtype,
            "precision": self.precision,
            "kernel_init": self.kernel_init,
        }
        x = DepthwiseConv(
            self.kernel_size,
            strides=self.strides,
            padding=self.padding,
            kernel_dilation=self.kernel_dilation,
            channel_multiplier=self.channel_multiplier,
            use_bias=False,
            name="depthwise",
            **shared,
        )(inputs)
        return Conv(
            self.features,
            (1,) * len(as_kernel_size(self.kernel_size)),
            use_bias=self.use_bias,
            bias_init=self.bias_init,
            name="pointwise",
            **shared,
        )(x)


def as_kernel_size(kernel_size: int | Sequence[int]) -> tuple[int, ...]:
    """One number means one spatial axis."""
    return (kernel_size,) if isinstance(kernel_size, int) else tuple(kernel_size)


def check_channels(inputs: jax.Array, rank: int) -> int:
    """The number of input channels.

    Raises:
      ModelError: `inputs` is not `[..., spatial axes, C]` with `rank` spatial axes.
    """
    if inputs.ndim <= rank:
        raise ModelError(
            f"a kernel of {rank} axes needs input [..., {rank} spatial axes, C], "
            f"not {list(inputs.shape)}"
        )
    return int(inputs.shape[-1])


def masked_kernel(module: Any, shape: tuple[int, ...]) -> jax.Array:
    """The parameter `kernel` of `module`, times its mask if it has one.

    Raises:
      ModelError: the mask is not of the kernel's shape.
    """
    kernel: jax.Array = module.param("kernel", module.kernel_init, shape, module.param_dtype)
    if module.mask is None:
        return kernel
    if module.mask.shape != shape:
        raise ModelError(f"mask {list(module.mask.shape)} must have the kernel's shape {shape}")
    return kernel * module.mask.astype(kernel.dtype)


def channels_last(rank: int) -> tuple[str, str, str]:
    """Layout of images, kernel and output: NHWC, HWIO, NHWC for two spatial axes."""
    axes = "DHW"[-rank:]
    return f"N{axes}C", f"{axes}IO", f"N{axes}C"


def add_bias(y: jax.Array, bias: jax.Array | None) -> jax.Array:
    """`y` plus a bias `[C]` along its last axis, if there is one."""
    return y if bias is None else y + bias.reshape((1,) * (y.ndim - 1) + (-1,))
