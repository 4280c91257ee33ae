"""Sliding windows: answers for images larger than what a network was trained on.

As in nnU-Net (Isensee et al. 2021): windows overlap, and where they do their answers are
averaged, weighted by how near the pixel is to the centre of each, for a network knows least
about what lies at the border of what it sees.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cnn_jax.errors import ModelError

_SIGMAS = 8  # standard deviations of the weights along a window, as in nnU-Net


def window_starts(length: int, window: int, overlap: float) -> tuple[int, ...]:
    """Where windows along one axis begin: the first at 0, the last flush with the end.

    As few as neighbours of the least overlap need, as even as whole pixels allow.

    Args:
      length: pixels of the image along the axis, 1 or more.
      window: pixels of a window; of a shorter image there is one window, which begins at 0.
      overlap: least share of a window that it has in common with the next, 0 <= overlap < 1;
        but the next one is at least a pixel further on.

    Raises:
      ModelError: a length or a window below 1, or another overlap.
    """
    if length < 1 or window < 1:
        raise ModelError(f"length={length} and window={window} must be 1 pixel or more")
    if not 0 <= overlap < 1:
        raise ModelError(f"overlap={overlap} must be at least 0 and less than 1")
    # 0.07 * 100 is a little more than 7, which must not make 8 of it.
    shared = math.ceil(window * overlap - 1e-9)
    step = max(1, window - shared)
    way = max(0, length - window)
    steps = -(-way // step)
    return tuple(number * way // max(1, steps) for number in range(steps + 1))


def importance(window: Sequence[int]) -> jax.Array:
    """The weight of each pixel of a window in the mean: a Gaussian around its centre.

    Its standard deviation is an eighth of the window along each axis. No weight is 0: the least
    is above exp(-8) along each axis, 3e-11 in a volume.

    Args:
      window: pixels along each axis.

    Returns:
      float32 of shape `window`, at most 1.

    Raises:
      ModelError: a window below 1 pixel.
    """
    _check_window(window)
    weights = jnp.ones((1,) * len(window), jnp.float32)
    # Multiplied in the program, which so holds a line of numbers for each axis and no volume.
    for axis, size in enumerate(window):
        weights = weights * _along(axis, len(window), _gaussian(size))
    return weights


def slide(
    predict: Callable[[jax.Array], jax.Array],
    image: jax.Array,
    window: Sequence[int],
    *,
    overlap: float = 0.5,
) -> jax.Array:
    """The mean of what `predict` answers in windows over an image, weighted by `importance`.

    Pure, and may be jitted: one window is worked on at a time, in a loop whose program does not
    depend on how many there are. A window that covers the image is not weighted: the result is
    then `predict` itself, bit for bit.

    An image that is smaller than the window along an axis is padded with zeros on both sides,
    the odd one at the end, and the answer is cropped again. Zero is the mean of images that are
    normalised, and what the convolutions of a network pad with; `image` should be normalised.

    Args:
      predict: `[B, *window, C]` to `[B, *window, R]`, such as a model with its variables.
      image: `[B, H, W, C]`, or volumes `[B, D, H, W, C]`.
      window: pixels along each spatial axis.
      overlap: as in `window_starts`; half a window, as in nnU-Net.

    Returns:
      float32 `[B, H, W, R]`, or `[B, D, H, W, R]`.

    Raises:
      ModelError: a window or an overlap that make no sense, or `predict` does not answer for
        every pixel.
    """
    window = tuple(window)
    _check_window(window)
    if image.ndim != len(window) + 2:
        raise ModelError(
            f"window={window} must have a number for each spatial axis of images "
            f"[B, spatial axes, C], which here are {list(image.shape)}"
        )
    sides = image.shape[1:-1]
    lows = [max(0, size - side) // 2 for side, size in zip(sides, window, strict=True)]
    highs = [max(0, size - side) - low for side, size, low in zip(sides, window, lows, strict=True)]
    image = jnp.pad(image, [(0, 0), *zip(lows, highs, strict=True), (0, 0)])
    starts = [
        window_starts(side, size, overlap)
        for side, size in zip(image.shape[1:-1], window, strict=True)
    ]
    if all(len(along) == 1 for along in starts):
        _regions(predict, image, window)
        answer = predict(image).astype(jnp.float32)
    else:
        answer = _weighted_sums(predict, image, window, starts)
        for axis, (side, size, along) in enumerate(
            zip(image.shape[1:-1], window, starts, strict=True)
        ):
            # The sum of products over a grid of windows is the product of sums along each axis.
            answer = answer / _along(axis + 1, answer.ndim, _summed(side, size, along))
    inside = [slice(low, low + side) for low, side in zip(lows, sides, strict=True)]
    return answer[(slice(None), *inside)]


def _weighted_sums(
    predict: Callable[[jax.Array], jax.Array],
    image: jax.Array,
    window: tuple[int, ...],
    starts: Sequence[tuple[int, ...]],
) -> jax.Array:
    """Sum over all windows of weight times answer, float32 `[B, *spatial, R]`."""
    batch, *sides, channels = image.shape
    grid = tuple(map(len, starts))
    regions = _regions(predict, image, window)
    weights = importance(window)[None, ..., None]
    places = [jnp.asarray(along, jnp.int32) for along in starts]

    def add(number: jax.Array, sums: jax.Array) -> jax.Array:
        at = jnp.unravel_index(number, grid)
        corner: list[Any] = [0, *(along[k] for along, k in zip(places, at, strict=True)), 0]
        seen = lax.dynamic_slice(image, corner, (batch, *window, channels))
        before = lax.dynamic_slice(sums, corner, (batch, *window, regions))
        after = before + weights * predict(seen).astype(jnp.float32)
        return lax.dynamic_update_slice(sums, after, corner)

    nothing = jnp.zeros((batch, *sides, regions), jnp.float32)
    sums: jax.Array = lax.fori_loop(0, math.prod(grid), add, nothing)
    return sums


def _regions(
    predict: Callable[[jax.Array], jax.Array], image: jax.Array, window: tuple[int, ...]
) -> int:
    """R, the number of values that `predict` gives for a pixel."""
    shape = (image.shape[0], *window, image.shape[-1])
    found = jax.eval_shape(predict, jax.ShapeDtypeStruct(shape, image.dtype))
    given = getattr(found, "shape", None)
    if given is None or given[:-1] != shape[:-1]:
        shown = "no array" if given is None else list(given)
        raise ModelError(
            f"predict must answer for every pixel: of {list(shape)} it made {shown}, "
            f"not {[*shape[:-1], 'R']}"
        )
    return int(given[-1])


def _gaussian(size: int) -> np.ndarray:
    """Weights float64 `[size]` along a window."""
    z = (np.arange(size) - (size - 1) / 2) * (_SIGMAS / size)
    return np.exp(-(z**2) / 2)


def _summed(side: int, size: int, starts: tuple[int, ...]) -> np.ndarray:
    """Sum float64 `[side]` of the weights of all windows along an axis."""
    sums = np.zeros(side)
    for start in starts:
        sums[start : start + size] += _gaussian(size)
    return sums


def _along(axis: int, ndim: int, values: np.ndarray) -> jax.Array:
    """Values `[n]` as float32 of `ndim` axes, all of them 1 long but `axis`."""
    shape = [1] * ndim
    shape[axis] = len(values)
    return jnp.asarray(values.reshape(shape), jnp.float32)


def _check_window(window: Sequence[int]) -> None:
    if not window or min(window) < 1:
        raise ModelError(f"window={tuple(window)} must be 1 pixel or more along each axis")
