"""Test-time augmentation: the views of an image whose predictions are averaged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import jax
import jax.numpy as jnp

Views = Literal["one", "mirror", "mirror-shift"]


def views_of(image: jax.Array, views: Views) -> Iterator[tuple[jax.Array, float]]:
    """Views `[B, ..., H, W, C]` of the images of a batch, each with its weight; they sum to 1.

    `one` is the images themselves. `mirror` adds their mirror images, left and right.
    `mirror-shift` adds both, moved by a pixel up and left, and down and right, the border
    mirrored; the middle has half of the weight (Jordan 2024, "94% on CIFAR-10 in 3.29
    seconds on a single GPU", section 3.5).
    """
    if views == "one":
        yield image, 1.0
        return
    share = 0.25 if views == "mirror-shift" else 0.5
    yield from _both_ways(image, share)
    if views == "mirror-shift":
        axes = ((0, 0),) * (image.ndim - 3) + ((1, 1), (1, 1), (0, 0))
        padded = jnp.pad(image, axes, mode="reflect")
        yield from _both_ways(padded[..., 2:, 2:, :], share / 2)
        yield from _both_ways(padded[..., :-2, :-2, :], share / 2)


def _both_ways(image: jax.Array, weight: float) -> Iterator[tuple[jax.Array, float]]:
    yield image, weight
    yield image[..., ::-1, :], weight
