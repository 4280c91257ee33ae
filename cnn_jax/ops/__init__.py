"""How a convolution or a pooling is computed: the only three functions `nn` calls.

Signatures and results are those of `jax.lax.conv_general_dilated` and of Flax's `max_pool`
and `avg_pool`, so that a faster algorithm can take their place with nothing above changed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from cnn_jax.errors import ModelError

__all__ = ["Padding", "avg_pool", "conv_general_dilated", "max_pool"]

Padding = str | Sequence[tuple[int, int]]


def conv_general_dilated(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: Padding,
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: lax.PrecisionLike = None,
    preferred_element_type: Any = None,
) -> jax.Array:
    """Convolution with strides, dilations and groups, as `jax.lax.conv_general_dilated`.

    Args:
      lhs: images, laid out as `dimension_numbers` says.
      rhs: kernel, of the same dtype.
      window_strides: one stride for each spatial axis.
      padding: `SAME`, `VALID` or a (low, high) pair for each spatial axis.
      lhs_dilation: spread of the images, by default 1 (the stride of a transposed convolution).
      rhs_dilation: spread of the kernel, by default 1 (atrous convolution).
      dimension_numbers: layout of images, kernel and output; by default NCHW and OIHW.
      feature_group_count: groups of input channels that do not mix.
      batch_group_count: groups of examples that do not mix.
      precision: `jax.lax.Precision` of the products.
      preferred_element_type: dtype of the sums and of the output.

    Returns:
      The output, laid out as `dimension_numbers` says.
    """
    return lax.conv_general_dilated(
        lhs,
        rhs,
        window_strides,
        padding,
        lhs_dilation=lhs_dilation,
        rhs_dilation=rhs_dilation,
        dimension_numbers=dimension_numbers,
        feature_group_count=feature_group_count,
        batch_group_count=batch_group_count,
        precision=precision,
        preferred_element_type=preferred_element_type,
    )


def max_pool(
    x: jax.Array,
    window_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    padding: Padding = "VALID",
) -> jax.Array:
    """The largest value in each window.

    Args:
      x: floating, `[..., spatial axes, C]` with any number of leading axes.
      window_shape: one length for each spatial axis.
      strides: one stride for each spatial axis; 1 everywhere by default, as in Flax.
      padding: `SAME`, `VALID` or a (low, high) pair for each spatial axis; padding never wins.

    Returns:
      `[..., pooled spatial axes, C]`, the dtype of `x`.

    Raises:
      ModelError: `x` is not floating, or the arguments do not fit its axes.
    """
    return _reduce_windows(x, -math.inf, lax.max, window_shape, strides, padding)


def avg_pool(
    x: jax.Array,
    window_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    padding: Padding = "VALID",
    count_include_pad: bool = True,
) -> jax.Array:
    """The mean of each window.

    Args:
      x: floating, `[..., spatial axes, C]` with any number of leading axes.
      window_shape: one length for each spatial axis.
      strides: one stride for each spatial axis; 1 everywhere by default, as in Flax.
      padding: `SAME`, `VALID` or a (low, high) pair for each spatial axis, filled with zeros.
      count_include_pad: whether the zeros of the padding count in the mean.

    Returns:
      `[..., pooled spatial axes, C]`, the dtype of `x` (Flax returns float32 for bfloat16
      images when the padding does not count).

    Raises:
      ModelError: `x` is not floating, or the arguments do not fit its axes.
    """
    sums = _reduce_windows(x, 0.0, lax.add, window_shape, strides, padding)
    if count_include_pad:
        return sums / math.prod(window_shape)
    spatial_shape = x.shape[-len(window_shape) - 1 : -1]
    ones = jnp.ones((*spatial_shape, 1), x.dtype)
    counts = _reduce_windows(ones, 0.0, lax.add, window_shape, strides, padding)
    return sums / jnp.expand_dims(counts, range(x.ndim - counts.ndim))


def _reduce_windows(
    x: jax.Array,
    initial: float,
    reduce: Callable[..., Any],
    window_shape: Sequence[int],
    strides: Sequence[int] | None,
    padding: Padding,
) -> jax.Array:
    rank = len(window_shape)
    strides = (1,) * rank if strides is None else tuple(strides)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ModelError(f"pooling needs floating-point input, not {x.dtype}: convert it first")
    if x.ndim <= rank:
        raise ModelError(
            f"window {tuple(window_shape)} needs input [..., {rank} spatial axes, C], "
            f"not {list(x.shape)}"
        )
    if len(strides) != rank or not (isinstance(padding, str) or len(padding) == rank):
        raise ModelError(
            f"window {tuple(window_shape)}, strides {strides} and padding {padding} must have "
            "one entry for each spatial axis"
        )
    if isinstance(padding, str) and padding.upper() not in ("SAME", "VALID"):
        raise ModelError(f"padding {padding!r} must be 'SAME', 'VALID' or (low, high) pairs")
    leading = x.ndim - rank - 1
    if not isinstance(padding, str):
        padding = [(0, 0)] * leading + [(low, high) for low, high in padding] + [(0, 0)]
    windows = (1,) * leading + tuple(window_shape) + (1,)
    steps = (1,) * leading + strides + (1,)
    # A Python number, not an array: jax recognises max and sum, and their gradients, by it.
    return lax.reduce_window(x, initial, reduce, windows, steps, padding)
