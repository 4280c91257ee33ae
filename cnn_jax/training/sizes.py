"""Progressive resizing: small images in the first epochs, which cost less (Howard 2018).

Half the side is a quarter of the pixels, and of the multiplications of a convolutional network.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax


def side_of(sides: Sequence[int], epoch: int, epochs: int) -> int | None:
    """Shorter side in pixels of the training images of an epoch; None for images as they are.

    Args:
      sides: in order, each for an equal share of the epochs; with fewer epochs the last ones.
      epoch, epochs: from 0, and how many there are.
    """
    if not sides:
        return None
    left = epochs - 1 - epoch  # counted from the end, which the last size must not miss
    return sides[len(sides) - 1 - min(left * len(sides) // epochs, len(sides) - 1)]


def shape_of(image_shape: tuple[int, ...], side: int) -> tuple[int, ...]:
    """Height, width and channels of an image whose shorter side is made so many pixels long."""
    height, width, channels = image_shape
    shorter = min(height, width)
    return round(height * side / shorter), round(width * side / shorter), channels


def resize(image: jax.Array, side: int) -> jax.Array:
    """Images `[B, H, W, C]` whose shorter side is `side` pixels; larger ones are left alone.

    Triangle filter as wide as the reduction, as Pillow and torchvision reduce: what is finer than
    the new pixels is averaged, not aliased.
    """
    if side >= min(image.shape[1:3]):
        return image
    wanted = (len(image), *shape_of(image.shape[1:], side))
    return jax.image.resize(image, wanted, "linear", antialias=True)
