"""Occlusion: how much an answer falls when a part of the image is covered."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cnn_jax.errors import ModelError
from cnn_jax.explain.answers import Answers, answer_of, working_dtype


def occlusion(
    logits: Answers,
    image: jax.Array,
    target: jax.Array,
    *,
    side: int,
    stride: int,
    fill: jax.Array | float = 0.0,
) -> jax.Array:
    """The fall of a class's logit under a square cover, at each pixel the mean over covers.

    a(p) = mean over the squares S that hold p of (f(x) - f(x with S set to the fill)) / |S|
    (Zeiler & Fergus 2014, who colour the middle of each square). It is exact where a network
    adds up what its pixels say: of f(x) = sum w x + b, squares of one pixel give w (x - fill),
    which sums to f(x) - f(fill); and a pixel that f does not look at, nor at any within a square
    of it, has 0.

    Pure, and may be jitted: one square is worked on at a time.

    Args:
      logits: `[B, H, W, C]` to `[B, K]`; in evaluation, so that an image answers for itself.
      image: float `[B, H, W, C]`, as `logits` takes it.
      target: int32 `[B]`, the class of each image.
      side: of the squares in pixels; at the border they are cut off, so that every pixel is
        covered alike often, but for the corners.
      stride: pixels from one square to the next; at most `side`, so that all are covered.
      fill: what covers, a value or one for each channel `[C]`; 0 is the mean of images that are
        normalised.

    Returns:
      `[B, H, W]`, positive where the image speaks for the class; float32, or float64 for images
      that are.

    Raises:
      ModelError: squares that leave pixels out, or are larger than the image; images, targets or
        logits of another shape or kind; or a class that is none (NaN under `jit`).
    """
    answer = answer_of(logits, image, target)
    dtype = working_dtype(image)
    _, height, width, channels = image.shape
    if not 1 <= stride <= side <= min(height, width):
        raise ModelError(
            f"side={side} and stride={stride} must be 1 <= stride <= side <= {min(height, width)}, "
            "the shorter side of the images: else pixels are left out"
        )
    fills = jnp.broadcast_to(jnp.asarray(fill, image.dtype), (channels,))
    corners = jnp.asarray(
        [
            (top, left)
            for top in _starts(height, side, stride)
            for left in _starts(width, side, stride)
        ],
        jnp.int32,
    )
    rows, columns = jnp.arange(height)[:, None], jnp.arange(width)[None, :]

    whole = answer(image)

    def add(number: jax.Array, sums: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        total, times = sums
        top, left = corners[number, 0], corners[number, 1]
        inside = (rows >= top) & (rows < top + side) & (columns >= left) & (columns < left + side)
        covered = jnp.where(inside[None, :, :, None], fills[None, None, None, :], image)
        share = (whole - answer(covered)) / inside.sum().astype(dtype)
        square = inside.astype(dtype)
        return total + share[:, None, None] * square[None], times + square

    nothing = jnp.zeros(image.shape[:-1], dtype), jnp.zeros((height, width), dtype)
    total, times = lax.fori_loop(0, len(corners), add, nothing)
    return total / times[None]


def _starts(length: int, side: int, stride: int) -> np.ndarray:
    """Where squares begin, from the first that reaches into the image to the last."""
    return np.arange(1 - side + (side - 1) % stride, length, stride)
