"""The largest value or the mean of each window, with gradients that scatter nothing.

XLA reduces windows one by one, and scatters the gradient of their maximum one by one: on a
CPU 20 to 30 times slower than the forward pass. Here a pooling is a few operations on whole
arrays, one strided slice of the images for each position of the window. They are the same
on all platforms, so that derivatives of every kind and order are those of plain slices.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cnn_jax.ops.convolution import Padding
from cnn_jax.ops.windows import LONGEST_UNROLLED, MOST_TAPS, Windows, sum_dtype, windows_over

_NOWHERE = 255  # the code of no position: a window has fewer


def max_pool(
    x: jax.Array,
    window_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    padding: Padding = "VALID",
) -> jax.Array:
    """The largest value in each window.

    The first largest value of a window, in row-major order, gets its whole gradient, as with
    Flax; forward-mode derivatives take that same value's tangent. A window that holds NaN
    gives NaN, and its gradient to the first of them (the stock gradient goes to what follows
    the last). Padding is never chosen, not even beside values of -inf (in the stock
    gradient on a CPU it is). Windows longer than 32 along an axis are left to XLA there.

    Args:
      x: floating, `[..., spatial axes, C]` with any number of leading axes.
      window_shape: one length for each spatial axis.
      strides: one stride for each spatial axis; 1 everywhere by default, as in Flax.
      padding: `SAME`, `VALID` or a (low, high) pair for each spatial axis, filled with -inf.

    Returns:
      `[..., pooled spatial axes, C]`, the dtype of `x`.

    Raises:
      ModelError: `x` is not floating, or the arguments do not fit its axes.
    """
    windows = windows_over(x, window_shape, strides, padding)
    if math.prod(windows.shape) <= MOST_TAPS:
        return _largest(x, windows)
    # The first largest in the first row that has it is the first in row-major order.
    for along in windows.axis_by_axis():
        if max(along.shape) <= LONGEST_UNROLLED:
            x = _largest(x, along)
        else:
            # A Python number, not an array: jax recognises max and its gradient by it.
            x = lax.reduce_window(x, -math.inf, lax.max, *along.over_all_axes())
    return x


def avg_pool(
    x: jax.Array,
    window_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    padding: Padding = "VALID",
    count_include_pad: bool = True,
) -> jax.Array:
    """The mean of each window, summed in float32 where `x` is narrower.

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
    windows = windows_over(x, window_shape, strides, padding)
    sums = x.astype(sum_dtype(x))
    if math.prod(windows.shape) <= MOST_TAPS:
        sums = (_sum_tiles if windows.tile else _sum_taps)(sums, windows)
    elif windows.tile:
        sums = _cut_into_blocks(sums, windows).sum(_axes_in_blocks(windows))
    else:
        for along in windows.axis_by_axis():
            if max(along.shape) <= LONGEST_UNROLLED:
                sums = _sum_taps(sums, along)
            else:
                sums = lax.reduce_window(sums, 0.0, lax.add, *along.over_all_axes())
    if count_include_pad:
        return (sums / math.prod(windows.shape)).astype(x.dtype)
    counts = _positions_in_image(windows).astype(sums.dtype)
    return (sums / counts.reshape((1,) * windows.leading + counts.shape)).astype(x.dtype)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _largest_by_rule(x: jax.Array, windows: Windows) -> jax.Array:
    """The largest value of each window, and -inf where a window lies in the padding."""
    return functools.reduce(lax.max, (tap.spread(tap.of(x), -math.inf) for tap in windows.taps()))


@_largest_by_rule.defjvp
def _largest_jvp(
    windows: Windows, primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    (x,), (tangent,) = primals, tangents
    y = _largest_by_rule(x, windows)
    index = _first_largest(lax.stop_gradient(x), windows)
    # The backward pass then keeps the index, a byte for each window, instead of masks as large
    # as the images; and XLA does not find the index anew for each position that asks for it.
    pick = jax.checkpoint(functools.partial(_pick, windows=windows))
    return y, pick(tangent, index)


# For callers that do not jit; `inline` leaves no trace of it in the programs of those who do.
_largest = jax.jit(_largest_by_rule, static_argnums=1, inline=True)


def _first_largest(x: jax.Array, windows: Windows) -> jax.Array:
    """Which position of each window, by its number in row-major order, holds the largest value.

    Args:
      x: images.
      windows: of this pooling.

    Returns:
      uint8, `[..., pooled spatial axes, C]`; any number where a window lies in the padding.
    """
    # Values are compared with one another and not with the pooled ones: XLA on CPU may compute `x`
    # anew in each fusion and round it otherwise, so that no value would equal the largest.
    # XLA on CPU (jaxlib 0.10) recomputes cheap operands at each use, here for each window that
    # a position is in, whatever barrier stands between: 7 ms instead of 2.5 for 3x3 windows of
    # stride 2. A square root counts as expensive and is kept. With stride 1 it costs more.
    keep = any(1 < s < k for s, k in zip(windows.strides, windows.shape, strict=True))
    power = 2 if keep else 1
    *earlier, last = windows.taps()
    largest = last.spread(last.of(x), -math.inf)
    index = lax.full_like(largest, _code(last.place, windows) ** power, jnp.float32)
    for tap in reversed(earlier):
        value = tap.of(x)
        found = (value >= tap.within(largest)) | (value != value)
        code = np.float32(_code(tap.place, windows) ** power)
        # Not the padded values are compared but the comparison is padded: 4 times faster.
        index = jnp.where(tap.spread(found, False), code, index)
        largest = lax.max(tap.spread(value, -math.inf), largest)
    return (lax.sqrt(index) if keep else index).astype(jnp.uint8)


def _pick(x: jax.Array, index: jax.Array, *, windows: Windows) -> jax.Array:
    """The value at one position of each window: linear in `x`, and its transpose is fast.

    The images are cut into blocks of one stride. A window starts with a block and reaches
    over a few, so the transpose asks, for each position of the images, the few windows it is
    in whether they chose it: no scatter, and no pass over the images for each position.
    """
    blocks = _cut_into_blocks(x, windows)
    within = _axes_in_blocks(windows)
    index = lax.expand_dims(index, within)
    picked = []
    for shift in itertools.product(*map(range, windows.reach)):
        part = blocks
        for axis, start, count in zip(within, shift, windows.counts, strict=True):
            part = lax.slice_in_dim(part, start, start + count, axis=axis - 1)
        chosen = index == _codes_in_block(shift, windows)
        picked.append(jnp.where(chosen, part, jnp.zeros((), x.dtype)))
    return functools.reduce(operator.add, picked).sum(within)


def _cut_into_blocks(x: jax.Array, windows: Windows) -> jax.Array:
    """`[..., H, W, C]` to `[..., blocks, stride, blocks, stride, C]`, padded as `windows` are."""
    ends = [
        (count + reach - 1) * stride
        for count, reach, stride in zip(windows.counts, windows.reach, windows.strides, strict=True)
    ]
    edges = [
        (low, end - low - size, 0)
        for end, (low, _), size in zip(ends, windows.padding, windows.sizes, strict=True)
    ]
    none = [(0, 0, 0)] * windows.leading
    x = lax.pad(x, jnp.zeros((), x.dtype), [*none, *edges, (0, 0, 0)])
    for i, stride in enumerate(windows.strides):
        axis = windows.leading + 2 * i
        # One axis at a time, as explicit sharding demands.
        x = x.reshape((*x.shape[:axis], ends[i] // stride, stride, *x.shape[axis + 1 :]))
    return x


def _axes_in_blocks(windows: Windows) -> tuple[int, ...]:
    """The axes of `_cut_into_blocks` that run over the positions in a block."""
    return tuple(windows.leading + 1 + 2 * i for i in range(len(windows.shape)))


def _codes_in_block(shift: Sequence[int], windows: Windows) -> jax.Array:
    """The numbers in a window of the positions of one of its blocks, to compare an index with.

    Computed in the program: XLA on CPU would load a constant for each pixel, 3 times slower.

    Args:
      shift: which block of the window, along each axis.
      windows: of this pooling.

    Returns:
      uint8 of a block's shape, with axes of 1 for all else; `_NOWHERE` outside the window.
    """
    shape = [1] * (windows.leading + 2 * len(windows.shape) + 1)
    code = jnp.zeros(shape, jnp.int32)
    inside = jnp.ones(shape, bool)
    for axis, start, stride, length in zip(
        _axes_in_blocks(windows), shift, windows.strides, windows.shape, strict=True
    ):
        along = (*shape[:axis], stride, *shape[axis + 1 :])
        place = start * stride + lax.broadcasted_iota(jnp.int32, along, axis)
        code = code * length + place
        inside &= place < length
    return jnp.where(inside, code, _NOWHERE).astype(jnp.uint8)


def _code(place: tuple[int, ...], windows: Windows) -> int:
    return int(np.ravel_multi_index(place, windows.shape))


@functools.partial(jax.jit, static_argnums=1, inline=True)
def _sum_taps(x: jax.Array, windows: Windows) -> jax.Array:
    return functools.reduce(operator.add, (tap.spread(tap.of(x), 0.0) for tap in windows.taps()))


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _sum_tiles(x: jax.Array, windows: Windows) -> jax.Array:
    """As `_sum_taps`, of windows that do not overlap."""
    return _sum_taps(x, windows)


@_sum_tiles.defjvp
def _sum_tiles_jvp(
    windows: Windows, primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    (x,), (tangent,) = primals, tangents
    # The same sum, whose transpose repeats each number; that of strided slices asks for each
    # position of the images to which slice it belongs, in 1.2 to 1.7 times as long.
    sums = _cut_into_blocks(tangent, windows).sum(_axes_in_blocks(windows))
    return _sum_tiles(x, windows), sums


def _positions_in_image(windows: Windows) -> np.ndarray:
    """How many positions of each window lie in the image: `[pooled spatial axes, 1]`."""
    counts = np.ones(1)
    for size, (low, _), length, stride, count in zip(
        windows.sizes, windows.padding, windows.shape, windows.strides, windows.counts, strict=True
    ):
        start = np.arange(count) * stride - low
        inside = np.minimum(start + length, size) - np.maximum(start, 0)
        counts = np.multiply.outer(counts, np.maximum(inside, 0))
    return np.moveaxis(counts, 0, -1)
