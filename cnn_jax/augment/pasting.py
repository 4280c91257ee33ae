"""Where a part of an image is cut out and where it is pasted, of CutPaste (Li et al. 2021)."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import lax

from cnn_jax.augment.covering import box

# Appendix of the paper: share of the area and aspect ratio of a patch; width and length of a scar
# in parts of the image's shorter side (2 to 16 and 10 to 25 pixels of 256), and the angle by which
# it leans either way, degrees.
_AREA = (0.02, 0.15)
_RATIO = 0.3
_SCAR_WIDTH, _SCAR_LENGTH = (2 / 256, 16 / 256), (10 / 256, 25 / 256)
_LEAN = 45.0
SMALLEST = 4  # pixels of a side: in less, a scar has only one place


def patch(key: jax.Array, height: int, width: int) -> tuple[jax.Array, jax.Array]:
    """A rectangle that is copied from one place of an image to another.

    It covers 2 to 15 % of the area; its aspect ratio is log-uniform in [0.3, 1 / 0.3]. Sides are
    rounded to whole pixels.

    Args:
      key: of this image.
      height, width: of the image.

    Returns:
      Where it is pasted, bool `[H, W]`, and by how many rows and columns it was moved, int32 `[2]`:
      both places lie inside the image, and they differ.
    """
    of_shape, of_place = jax.random.split(key)
    area, ratio = jax.random.uniform(of_shape, (2,), jnp.float32)
    pixels = height * width * (_AREA[0] + (_AREA[1] - _AREA[0]) * area)
    root = jnp.exp(math.log(_RATIO) * (ratio - 0.5))
    sides = (jnp.sqrt(pixels) * root, height), (jnp.sqrt(pixels) / root, width)
    size = [jnp.clip(jnp.round(side), 1, most).astype(jnp.int32) for side, most in sides]
    start, shift = _places(of_place, (height, width), jnp.stack(size))
    return box((height, width), list(start), size), shift


def scar(key: jax.Array, height: int, width: int) -> tuple[jax.Array, jax.Array]:
    """As `patch`, a thin rectangle that leans by up to 45 degrees.

    Of its pixels those are copied whose centre lies in it.
    """
    of_shape, of_place = jax.random.split(key)
    thickness, length, lean = jax.random.uniform(of_shape, (3,), jnp.float32)
    shorter = min(height, width)

    def side(of: tuple[float, float], share: jax.Array, least: int) -> jax.Array:
        return jnp.maximum(shorter * (of[0] + (of[1] - of[0]) * share), least)

    # A square that holds it, whatever its angle: its middle is a pixel.
    wide, long = side(_SCAR_WIDTH, thickness, 1), side(_SCAR_LENGTH, length, 2)
    around = 2 * jnp.floor(jnp.sqrt(wide**2 + long**2) / 2).astype(jnp.int32) + 1
    size = jnp.minimum(around, jnp.array([height, width]))
    start, shift = _places(of_place, (height, width), size)
    angle = math.radians(_LEAN) * (2 * lean - 1)
    down, right = (
        (lax.broadcasted_iota(jnp.int32, (height, width), axis) - middle).astype(jnp.float32)
        for axis, middle in enumerate(start + size // 2)
    )
    along = jnp.cos(angle) * down + jnp.sin(angle) * right
    across = jnp.cos(angle) * right - jnp.sin(angle) * down
    inside = (jnp.abs(along) <= long / 2) & (jnp.abs(across) <= wide / 2)
    return inside & box((height, width), list(start), list(size)), shift


def _places(key: jax.Array, shape: tuple[int, int], size: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Where a box goes, and how far that is from where it comes from, int32 `[2]` each.

    Both are uniform over the places where it lies inside, and differ if there are two.
    """
    free = jnp.array(shape) - size + 1
    count = free[0] * free[1]
    from_where, further = jax.random.split(key)
    source = jax.random.randint(from_where, (), 0, count)
    step = jax.random.randint(further, (), 1, jnp.maximum(count, 2))
    target = (source + step) % count

    def corner(place: jax.Array) -> jax.Array:
        return jnp.stack([place // free[1], place % free[1]])

    return corner(target), corner(target) - corner(source)
