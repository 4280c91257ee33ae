"""Adaptive polyphase sampling: downsampling that a shift of the image does not change."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from cnn_jax.errors import ModelError
from cnn_jax.ops.global_pooling import spatial_axes
from cnn_jax.ops.windows import check_floating, sum_dtype


def adaptive_polyphase(x: jax.Array, stride: int = 2, *, order: float = 2.0) -> jax.Array:
    """Of the images that every `stride`-th position makes, the one of largest norm.

    Chaman & Dokmanić 2021, *Truly shift-invariant convolutional neural networks*. There are
    `stride` to the power of the spatial axes of them, the polyphase components; a strided layer
    keeps the first, whatever it holds. If the image moves along a circle the components trade
    places, and the same one is chosen: the result moves, too, and is not another. Where several
    have the largest norm (an image that repeats itself) the first of them is taken.

    Args:
      x: floating `[B, spatial axes, C]`; `stride` divides every spatial axis.
      stride: along each spatial axis.
      order: p of the norm (sum |x|^p), over positions and channels of one example.

    Returns:
      `[B, each / stride, C]`, the dtype of `x`.

    Raises:
      ModelError: `x` is not floating or has no spatial axis, the stride does not divide them, or a
        number is not positive.
    """
    check_floating(x)
    axes = spatial_axes(x)
    if stride < 1 or order <= 0:
        raise ModelError(f"stride {stride} and order {order} must be positive")
    if any(x.shape[axis] % stride for axis in axes):
        raise ModelError(
            f"polyphase components need sides that are multiples of {stride}, not "
            f"{[x.shape[axis] for axis in axes]}: pad or resize the images, or take blur pooling"
        )
    if stride == 1:
        return x
    parts = x
    for number, axis in enumerate(axes):
        # Positions of axis k are now at k + number, since each axis before it was split.
        at = axis + number
        shape = (*parts.shape[:at], parts.shape[at] // stride, stride, *parts.shape[at + 1 :])
        parts = parts.reshape(shape)
    phases = [axis + number + 1 for number, axis in enumerate(axes)]
    parts = jnp.moveaxis(parts, phases, range(1, 1 + len(axes)))
    small = tuple(x.shape[axis] // stride for axis in axes)
    parts = parts.reshape(len(x), stride ** len(axes), *small, x.shape[-1])
    size = jnp.abs(parts.astype(sum_dtype(x)))
    norms = (size**order).sum(axis=tuple(range(2, parts.ndim)))
    best = norms.argmax(axis=1).reshape(-1, *(1,) * (parts.ndim - 1))
    return jnp.take_along_axis(parts, best, axis=1)[:, 0]
