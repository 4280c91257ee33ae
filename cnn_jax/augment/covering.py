"""Transforms that cover a part of the image: cutout and random erasing. `mask` is left alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from cnn_jax.augment.batch import Batch

# Zhong et al., "Random erasing data augmentation", 2020: share of the area, aspect ratio.
_AREA = (0.02, 0.4)
_RATIO = 0.3


def box(shape: Sequence[int], start: Sequence[jax.Array], size: Sequence[jax.Array]) -> jax.Array:
    """Where a box lies: bool of the shape, True at start <= position < start + size."""
    inside = jnp.ones(shape, bool)
    for axis, (first, length) in enumerate(zip(start, size, strict=True)):
        position = lax.broadcasted_iota(jnp.int32, shape, axis)
        inside &= (position >= first) & (position < first + length)
    return inside


def cutout(keys: jax.Array, batch: Batch, side: int) -> Batch:
    """Set a square of `side` pixels to zero, its centre uniform over the image.

    The square is cut at the border, as in DeVries and Taylor, "Improved regularization of
    convolutional neural networks with cutout", 2017. In a volume it is a cube.
    """
    image = batch["image"]
    spatial = image.shape[1:-1]

    def covered(key: jax.Array) -> jax.Array:
        centre = jax.random.randint(key, (len(spatial),), 0, jnp.array(spatial))
        return box(spatial, list(centre - side // 2), [jnp.array(side)] * len(spatial))

    hole = jax.vmap(covered)(keys)[..., None]
    return {**batch, "image": jnp.where(hole, jnp.zeros_like(image), image)}


def erase(keys: jax.Array, batch: Batch, probability: float) -> Batch:
    """Fill a rectangle with random values, in some of the images (Zhong et al., 2020).

    The rectangle lies inside the image and covers 2 to 40 % of it; its aspect ratio is
    log-uniform in [0.3, 1 / 0.3] (a side never exceeds the image's). Every value in it is
    uniform over 0, 1/255, ..., 1. In a volume it goes through all slices.
    """
    image = batch["image"]
    height, width = image.shape[-3:-1]

    def covered(key: jax.Array) -> jax.Array:
        chosen, area, ratio, row, column = jax.random.uniform(key, (5,), jnp.float32)
        pixels = height * width * (_AREA[0] + (_AREA[1] - _AREA[0]) * area)
        root = jnp.exp(math.log(_RATIO) * (ratio - 0.5))
        size = [
            jnp.clip(jnp.round(side), 1, most)
            for side, most in ((jnp.sqrt(pixels) * root, height), (jnp.sqrt(pixels) / root, width))
        ]
        start = [jnp.floor(row * (height - size[0] + 1)), jnp.floor(column * (width - size[1] + 1))]
        whole = [[x.astype(jnp.int32) for x in pair] for pair in (start, size)]
        return box((height, width), *whole) & (chosen < probability)

    keys = jax.vmap(jax.random.split)(keys)
    hole = jax.vmap(covered)(keys[:, 0])
    hole = hole.reshape(hole.shape[0], *(1,) * (image.ndim - 4), height, width, 1)
    return {**batch, "image": jnp.where(hole, _random_bytes(keys[:, 1], image), image)}


def _random_bytes(keys: jax.Array, like: jax.Array) -> jax.Array:
    """Values k / 255, a byte each: a quarter of the random bits that floats would need."""
    count = math.prod(like.shape[1:])
    words = jax.vmap(lambda key: jax.random.bits(key, (-(-count // 4),), jnp.uint32))(keys)
    values = lax.bitcast_convert_type(words, jnp.uint8).reshape(len(words), -1)[:, :count]
    return (values.astype(jnp.float32) / 255).reshape(like.shape)
