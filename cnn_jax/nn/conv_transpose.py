"""The transposed convolution, with the fields, defaults and variables of Flax's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen
from jax import lax

from cnn_jax import ops
from cnn_jax.nn.conv import (
    Initializer,
    add_bias,
    as_kernel_size,
    channels_last,
    check_channels,
    lecun_normal,
    masked_kernel,
    zeros,
)
from cnn_jax.nn.padding import (
    PaddingLike,
    as_pairs,
    dilated_size,
    same_for_all_axes,
    transposed_pairs,
)


class ConvTranspose(linen.Module):
    """Convolution of `[..., spatial axes, C]` that a stride enlarges.

    Variables: `kernel` `[*kernel_size, C, features]` (the last two swapped with
    `transpose_kernel`) and `bias` `[features]`.

    Attributes:
      features: number of output channels.
      kernel_size: length of the kernel along each spatial axis; one number means one axis.
      strides: enlargement along each axis, or one for all; 1 by default.
      padding: `SAME` (size times stride), `VALID`, `CIRCULAR`, a number, or a number or
        (low, high) pair for each axis, which pads the enlarged input.
      kernel_dilation: spread of the kernel, along each axis or for all.
      use_bias: whether a bias is added.
      mask: array of the kernel's shape that it is multiplied by, or None.
      dtype: dtype of the computation; by default that of input and parameters together.
      param_dtype: dtype of the parameters.
      precision: `jax.lax.Precision` of the products.
      kernel_init, bias_init: initializers.
      transpose_kernel: flip the kernel and swap its channels: the gradient of a `Conv`.
      promote_dtype: brings input, kernel and bias to one dtype.
      preferred_element_type: dtype of the sums.

    Raises:
      ModelError: the input, the padding or the mask do not fit (when called).
    """

    features: int
    kernel_size: int | Sequence[int]
    strides: int | Sequence[int] | None = None
    padding: PaddingLike = "SAME"
    kernel_dilation: int | Sequence[int] | None = None
    use_bias: bool = True
    mask: jax.Array | None = None
    dtype: Any = None
    param_dtype: Any = jnp.float32
    precision: lax.PrecisionLike = None
    kernel_init: Initializer = lecun_normal
    bias_init: Initializer = zeros
    transpose_kernel: bool = False
    promote_dtype: Any = linen.dtypes.promote_dtype
    preferred_element_type: Any = None

    @linen.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Enlarge `[..., spatial axes, C]`; any number of leading axes, none included."""
        kernel_size = as_kernel_size(self.kernel_size)
        rank = len(kernel_size)
        channels = check_channels(inputs, rank)
        ends = (self.features, channels) if self.transpose_kernel else (channels, self.features)
        kernel = masked_kernel(self, (*kernel_size, *ends))
        bias = (
            self.param("bias", self.bias_init, (self.features,), self.param_dtype)
            if (self.use_bias)
            else None
        )
        x, kernel, bias = self.promote_dtype(inputs, kernel, bias, dtype=self.dtype)

        x = x.reshape(-1, *x.shape[-rank - 1 :])
        strides = same_for_all_axes(self.strides, rank)
        dilation = same_for_all_axes(self.kernel_dilation, rank)
        if self.transpose_kernel:
            kernel = jnp.flip(kernel, range(rank)).swapaxes(-1, -2)
        padding = as_pairs(self.padding, rank, ("SAME", "VALID", "CIRCULAR"))
        circular = padding == "CIRCULAR"
        if isinstance(padding, str):
            reach = dilated_size(kernel_size, dilation)
            padding = transposed_pairs("VALID" if circular else padding, reach, strides)
        y = ops.conv_general_dilated(
            x,
            kernel,
            (1,) * rank,
            padding,
            lhs_dilation=strides,
            rhs_dilation=dilation,
            dimension_numbers=channels_last(rank),
            precision=self.precision,
            preferred_element_type=self.preferred_element_type,
        )
        if circular:
            periods = [size * step for size, step in zip(x.shape[1:-1], strides, strict=True)]
            y = _wrap(y, periods, extra_first=not self.transpose_kernel)
        return add_bias(y, bias).reshape(*inputs.shape[: -rank - 1], *y.shape[1:])


def _wrap(y: jax.Array, periods: Sequence[int], *, extra_first: bool) -> jax.Array:
    """Fold the overhang of `y` `[N, spatial axes, C]` back, so that each axis is one period.

    Each axis is first padded to an odd number of periods, which keeps the start of the
    image at the start of a period. An odd pixel of padding goes first or last: first aligns
    kernels of even length as Flax does, last mirrors `Conv`.
    """
    for axis, period in enumerate(periods, start=1):
        missing = (period - y.shape[axis]) % (2 * period)
        low = (missing + 1) // 2 if extra_first else missing // 2
        widths = [(0, 0)] * y.ndim
        widths[axis] = (low, missing - low)
        y = jnp.pad(y, widths)
        y = y.reshape(*y.shape[:axis], -1, period, *y.shape[axis + 1 :]).sum(axis)
    return y
