"""Blur pooling: downsampling after a small blur, so that shifts of the image matter less."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from cnn_jax.errors import ModelError
from cnn_jax.ops.windows import check_floating, sum_dtype

_PADDINGS = ("reflect", "edge", "constant")


def blur_pool(
    x: jax.Array, strides: int | Sequence[int], kernel_size: int = 3, padding: str = "reflect"
) -> jax.Array:
    """A binomial blur of each channel, then every `strides`-th position.

    Anti-aliased downsampling of Zhang 2019, "Making Convolutional Networks Shift-Invariant
    Again". Along each axis the filter is the row `kernel_size - 1` of Pascal's triangle over
    its sum, 1 2 1 / 4 for 3. The edges are padded by (kernel_size - 1) / 2, the odd one
    after, as in the paper's code, so n positions become ceil(n / stride).

    Args:
      x: floating `[B, spatial axes, C]`; `[..., spatial axes, C]` where `strides` has one entry
        for each spatial axis.
      strides: along each spatial axis, or one number for all.
      kernel_size: length of the filter along each axis; 1 does not blur.
      padding: as `numpy.pad` names it: `reflect` and `edge` keep a constant image constant,
        `constant` pads with zeros.

    Returns:
      `[..., pooled spatial axes, C]`, the dtype of `x`; summed in float32 where that is narrower.

    Raises:
      ModelError: `x` is not floating, the arguments do not fit its axes, or the image is too
        small to be reflected.
    """
    check_floating(x)
    steps = (strides,) * (x.ndim - 2) if isinstance(strides, int) else tuple(strides)
    if not steps or x.ndim <= len(steps):
        raise ModelError(
            f"blur pooling with strides {strides} needs input [..., spatial axes, C], "
            f"not {list(x.shape)}"
        )
    if min(*steps, kernel_size) < 1:
        raise ModelError(f"strides {steps} and kernel_size {kernel_size} must be 1 or more")
    if padding not in _PADDINGS:
        raise ModelError(f"padding {padding!r} must be one of {', '.join(_PADDINGS)}")
    low, high = (kernel_size - 1) // 2, kernel_size // 2
    first = x.ndim - 1 - len(steps)
    sizes = x.shape[first:-1]
    if min(sizes) < 1 or (padding == "reflect" and min(sizes) <= high):
        raise ModelError(
            f"images {list(sizes)} are too small for padding {padding!r} of {high} positions: "
            "take a smaller kernel_size or padding 'edge'"
        )
    y = x.astype(sum_dtype(x))
    for axis, stride in enumerate(steps, first):
        edges = [(0, 0)] * x.ndim
        edges[axis] = (low, high)
        y = _filter_along(jnp.pad(y, edges, mode=padding), axis, stride, kernel_size)
    return y.astype(x.dtype)


def _filter_along(x: jax.Array, axis: int, stride: int, length: int) -> jax.Array:
    last = x.shape[axis] - length
    weights = [math.comb(length - 1, i) / 2 ** (length - 1) for i in range(length)]
    return functools.reduce(
        operator.add,
        (
            weight * lax.slice_in_dim(x, i, last + i + 1, stride, axis)
            for i, weight in enumerate(weights)
        ),
    )
