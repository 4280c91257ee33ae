"""Pooling over the whole image and to a fixed size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from cnn_jax.errors import ModelError


def global_avg_pool(x: jax.Array) -> jax.Array:
    """The mean over all positions: `[B, spatial axes, C]` to `[B, C]`, in the dtype of `x`.

    Raises:
      ModelError: `x` has no spatial axis.
    """
    return jnp.mean(x, spatial_axes(x))


def global_max_pool(x: jax.Array) -> jax.Array:
    """The maximum over all positions: `[B, spatial axes, C]` to `[B, C]`.

    Positions that share the maximum share its gradient equally, as with `jnp.max`.

    Raises:
      ModelError: `x` has no spatial axis.
    """
    return jnp.max(x, spatial_axes(x))


def adaptive_avg_pool(x: jax.Array, output_shape: int | Sequence[int]) -> jax.Array:
    """The mean of each of a fixed number of bins, whatever the size of the image.

    Bin i of o along an axis of n pixels holds the pixels floor(i n / o) to
    ceil((i + 1) n / o) - 1, as in PyTorch: bins overlap by a pixel where o does not divide n.

    Args:
      x: floating `[B, spatial axes, C]`.
      output_shape: bins along each spatial axis, or one number for all.

    Returns:
      `[B, *output_shape, C]`, the dtype of `x`.

    Raises:
      ModelError: `output_shape` does not fit the spatial axes, or is not positive.
    """
    return _reduce_bins(x, output_shape, jnp.mean)


def adaptive_max_pool(x: jax.Array, output_shape: int | Sequence[int]) -> jax.Array:
    """The maximum of each of a fixed number of bins; bins as in `adaptive_avg_pool`.

    Positions that share the maximum along an axis share its gradient equally.

    Args:
      x: `[B, spatial axes, C]`.
      output_shape: bins along each spatial axis, or one number for all.

    Returns:
      `[B, *output_shape, C]`, the dtype of `x`.

    Raises:
      ModelError: `output_shape` does not fit the spatial axes, or is not positive.
    """
    return _reduce_bins(x, output_shape, jnp.max)


def spatial_axes(x: jax.Array) -> tuple[int, ...]:
    """The axes of `[B, spatial axes, C]` between the first and the last.

    Raises:
      ModelError: there are none.
    """
    if x.ndim < 3:
        raise ModelError(f"pooling needs input [B, spatial axes, C], not {list(x.shape)}")
    return tuple(range(1, x.ndim - 1))


def _reduce_bins(
    x: jax.Array, output_shape: int | Sequence[int], reduce: Callable[..., Any]
) -> jax.Array:
    axes = spatial_axes(x)
    bins = (output_shape,) * len(axes) if isinstance(output_shape, int) else tuple(output_shape)
    if len(bins) != len(axes) or min(bins) < 1:
        raise ModelError(
            f"output_shape {bins} must hold a positive number for each of {len(axes)} spatial axes"
        )
    # A bin is a box, so one axis may follow the other.
    for axis, count in zip(axes, bins, strict=True):
        x = _reduce_bins_along(x, axis, count, reduce)
    return x


def _reduce_bins_along(
    x: jax.Array, axis: int, count: int, reduce: Callable[..., Any]
) -> jax.Array:
    size = x.shape[axis]
    if size == count:
        return x
    if size % count == 0:
        # One reduction, whose gradient is one pass over the images, not one for each bin.
        blocks = (*x.shape[:axis], count, size // count, *x.shape[axis + 1 :])
        return reduce(x.reshape(blocks), axis + 1)
    edges = [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]
    parts = [reduce(lax.slice_in_dim(x, a, b, axis=axis), axis) for a, b in edges]
    return jnp.stack(parts, axis)
