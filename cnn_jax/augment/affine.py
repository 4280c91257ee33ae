"""Affine geometry: draws of inverse maps, composed, then one resampling of the image.

A map says where each pixel of the result comes from: source = matrix (p - c) + c + shift
with c the centre of the image, in (row, column).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from cnn_jax.augment import warp
from cnn_jax.augment.batch import Batch, uniform


class Map(NamedTuple):
    """From the result to the source: `matrix` float32 `[B, 2, 2]`, `shift` float32 `[B, 2]`."""

    matrix: jax.Array
    shift: jax.Array


def linear(matrix: Sequence[Sequence[jax.Array]]) -> Map:
    """The map of a 2 x 2 matrix whose entries are float32 `[B]`."""
    rows = jnp.stack([jnp.stack(list(row), axis=-1) for row in matrix], axis=-2)
    return Map(rows, jnp.zeros(rows.shape[:2], jnp.float32))


def rotation(radians: jax.Array) -> Map:
    """A turn about the centre, anticlockwise by `radians` `[B]`."""
    cosine, sine = jnp.cos(radians), jnp.sin(radians)
    return linear([[cosine, sine], [-sine, cosine]])


def shearing(horizontal: jax.Array, vertical: jax.Array) -> Map:
    """Pixels move right by `horizontal` `[B]` a row below the centre, and down alike."""
    one = jnp.ones_like(horizontal)
    return linear([[one, -vertical], [-horizontal, one]])


def rotate(keys: jax.Array, degrees: float) -> Map:
    """A turn, uniform in [-degrees, degrees]."""
    return rotation(uniform(keys, -math.radians(degrees), math.radians(degrees)))


def scale(keys: jax.Array, change: float) -> Map:
    """Magnification, log-uniform in [1 / (1 + change), 1 + change], the same along both axes."""
    inverse = jnp.exp(uniform(keys, -math.log1p(change), math.log1p(change)))
    zero = jnp.zeros_like(inverse)
    return linear([[inverse, zero], [zero, inverse]])


def shear(keys: jax.Array, degrees: float) -> Map:
    """Vertical lines lean by an angle uniform in [-degrees, degrees]; rows stay rows."""
    slope = jnp.tan(uniform(keys, -math.radians(degrees), math.radians(degrees)))
    return shearing(slope, jnp.zeros_like(slope))


def crop(keys: jax.Array, height: int, width: int, area: float, ratio: float) -> Map:
    """A random part of the image, resized to the whole (Szegedy et al., 2015).

    It covers a share of the area uniform in [area, 1]; its aspect ratio, relative to the
    image's, is log-uniform in [1 / ratio, ratio]; a side never exceeds the image's. The
    part is only ever magnified, so nothing aliases.
    """
    keys = jax.vmap(lambda key: jax.random.split(key, 3))(keys)
    share = uniform(keys[:, 0], area, 1)
    root = jnp.exp(uniform(keys[:, 1], -math.log(ratio), math.log(ratio)) / 2)
    sides = jnp.minimum(jnp.sqrt(share)[:, None] * jnp.stack([root, 1 / root], axis=-1), 1)
    free = (1 - sides) * jnp.array([[height, width]], jnp.float32)
    zero = jnp.zeros_like(share)
    matrix = linear([[sides[:, 0], zero], [zero, sides[:, 1]]]).matrix
    return Map(matrix, free * uniform(keys[:, 2], -0.5, 0.5, (2,)))


def apply(batch: Batch, maps: Sequence[Map], padding: Literal["zero", "reflect"]) -> Batch:
    """The batch seen through the maps, the first of which acts on the image first.

    Args:
      batch: float32 `image` `[B, H, W, C]`, or `[B, D, H, W, C]` whose slices all move
        alike, and, if there is one, uint8 `mask` without the channels. The image is read
        linearly between pixels, the mask at the nearest.
      maps: at least one; composed, so that pixels are resampled once.
      padding: what is uncovered, in image and mask: `zero` or `reflect`.
    """
    image = batch["image"]
    rows, columns = _source(maps, image.shape[-3], image.shape[-2])
    planes = _to_planes(image)
    moved = {"image": _to_slices(warp.bilinear(planes, rows, columns, padding), image)}
    if "mask" in batch:
        mask = batch["mask"][..., None]
        planes = warp.nearest(_to_planes(mask), rows, columns, padding)
        moved["mask"] = _to_slices(planes, mask)[..., 0]
    return {**batch, **moved}


def _source(maps: Sequence[Map], height: int, width: int) -> tuple[jax.Array, jax.Array]:
    """Rows and columns to read, float32 `[B, H, W]`."""
    matrix, shift = maps[0]
    for outer in maps[1:]:
        shift = shift + _times(matrix, outer.shift[..., None])[..., 0]
        matrix = _times(matrix, outer.matrix)
    row = jnp.arange(height, dtype=jnp.float32)[None, :, None] - (height - 1) / 2
    column = jnp.arange(width, dtype=jnp.float32)[None, None, :] - (width - 1) / 2

    def along(axis: int, centre: float) -> jax.Array:
        m = matrix[:, axis, :, None, None]
        return m[:, 0] * row + m[:, 1] * column + (shift[:, axis, None, None] + centre)

    return along(0, (height - 1) / 2), along(1, (width - 1) / 2)


def _times(a: jax.Array, b: jax.Array) -> jax.Array:
    """The product of 2 x 2 matrices; a GPU's matrix units would round it to three digits."""
    return (a[..., :, :, None] * b[..., None, :, :]).sum(axis=-2)


def _to_planes(x: jax.Array) -> jax.Array:
    """Slices of a volume become channels: `[B, H, W, D C]`; images stay."""
    if x.ndim == 4:
        return x
    return jnp.moveaxis(x, 1, 3).reshape(x.shape[0], *x.shape[2:4], -1)


def _to_slices(planes: jax.Array, like: jax.Array) -> jax.Array:
    """The inverse of `_to_planes`."""
    if like.ndim == 4:
        return planes
    size, depth, height, width, channels = like.shape
    return jnp.moveaxis(planes.reshape(size, height, width, depth, channels), 3, 1)
