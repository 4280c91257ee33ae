"""What pooling keeps when the image moves a little."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax import ops
from cnn_jax.errors import EvaluationError

Pooling = Callable[[jax.Array], jax.Array]

# Each halves a map `[B, h, w, C]`, or makes one position of it.
POOLINGS: Mapping[str, Pooling] = {
    "every other position": lambda x: x[:, ::2, ::2],
    "maximum of 2 x 2": functools.partial(ops.max_pool, window_shape=(2, 2), strides=(2, 2)),
    "mean of 2 x 2": functools.partial(ops.avg_pool, window_shape=(2, 2), strides=(2, 2)),
    "blur pooling": functools.partial(ops.blur_pool, strides=2),
    "adaptive polyphase": ops.adaptive_polyphase,
    "maximum of all": ops.global_max_pool,
    "mean of all": ops.global_avg_pool,
}


def shift_distances(
    function: Callable[[jax.Array], jax.Array], images: Any, largest: int
) -> np.ndarray:
    """float64 `[largest + 1]`: how far a shift moves what a function gives of an image.

    d(s) = rms ||F(T x) - F(x)|| / rms ||F(x') - F(x)||, over images x, pairs of different images x
    and x', and circular shifts T by s pixels down or right: 0 where the shift changes nothing, 1
    where it moves the image as far as another image is. Positions are not moved back: it is
    invariance that is asked for, not equivariance.

    Args:
      function: images `[N, H, W, C]` to any array `[N, ...]`, such as a pooling, a layer, logits.
      images: `[N, H, W, C]`, two at least.
      largest: pixels.

    Raises:
      EvaluationError: other images, a shift out of range, or a function that gives all the same.
    """
    images = jnp.asarray(images)
    if images.ndim != 4 or len(images) < 2 or not 0 <= largest < min(images.shape[1:3]):
        raise EvaluationError(
            f"shifts by up to {largest} pixels need two images [N, H, W, C] at least that are "
            f"larger, not {list(images.shape)}"
        )
    call = jax.jit(function)
    features = _flat(call(images))
    # Over pairs of different images: 2 n / (n - 1) times the mean distance from the mean.
    n = len(features)
    apart = 2 * n / (n - 1) * ((features - features.mean(axis=0)) ** 2).sum(axis=1).mean()
    if not apart > 0:
        raise EvaluationError("the function gives the same for all images: no distance to compare")
    found = []
    for pixels in range(largest + 1):
        moved = [
            ((_flat(call(jnp.roll(images, pixels, axis))) - features) ** 2).sum(axis=1).mean()
            for axis in (1, 2)
        ]
        found.append(np.sqrt(np.mean(moved) / apart))
    return np.array(found)


def _flat(features: jax.Array) -> np.ndarray:
    values = np.asarray(features, np.float64)
    return values.reshape(len(values), -1)
