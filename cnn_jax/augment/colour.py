"""Changes of brightness, contrast, saturation and hue, by a number for each example.

The formulas are those of Pillow's `ImageEnhance` and of torchvision, on floating-point
values: a blend of the image with a degenerate one, cut to 0..1.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from cnn_jax.augment.batch import Batch, beside, uniform

# Luma of ITU-R BT.601, as in Pillow.
_LUMA = (0.299, 0.587, 0.114)

# A change of images [B, ..., C] by values [B].
Change = Callable[[jax.Array, jax.Array], jax.Array]


def jitter(keys: jax.Array, batch: Batch, change: Change, low: float, high: float) -> Batch:
    """Change each image by a number of its own, uniform in [low, high)."""
    return {**batch, "image": change(batch["image"], uniform(keys, low, high))}


def grey(image: jax.Array) -> jax.Array:
    """Luma of three channels, else the mean over the channels; `[..., 1]`."""
    if image.shape[-1] == 3:
        parts = [weight * image[..., k : k + 1] for k, weight in enumerate(_LUMA)]
        return parts[0] + parts[1] + parts[2]
    return image.mean(axis=-1, keepdims=True)


def mean_grey(image: jax.Array) -> jax.Array:
    """The mean of `grey` over each image; `[B, 1, ..., 1]`."""
    luma = grey(image)
    return luma.mean(axis=tuple(range(1, luma.ndim)), keepdims=True)


def blend(image: jax.Array, degenerate: jax.Array, factor: jax.Array) -> jax.Array:
    """factor image + (1 - factor) degenerate, cut to 0..1; factors `[B]`."""
    factor = beside(factor, image)
    return jnp.clip(factor * image + (1 - factor) * degenerate, 0, 1)


def brightness(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Blend with black."""
    return jnp.clip(beside(factor, image) * image, 0, 1)


def contrast(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Blend with the mean grey of the image."""
    return blend(image, mean_grey(image), factor)


def saturation(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Blend with the grey image; float32 `[B, H, W, 3]`."""
    return blend(image, grey(image), factor)


def hue(image: jax.Array, turns: jax.Array) -> jax.Array:
    """Turn the hue of HSV by a part of the circle, keeping saturation and value.

    Args:
      image: float32 `[B, H, W, 3]` in 0..1.
      turns: float32 `[B]`; 1 is the whole circle.
    """
    red, green, blue = image[..., 0], image[..., 1], image[..., 2]
    value = image.max(axis=-1)
    chroma = value - image.min(axis=-1)
    divisor = jnp.where(chroma > 0, chroma, jnp.ones_like(chroma))
    sextant = jnp.where(
        value == red,
        (green - blue) / divisor,
        jnp.where(value == green, (blue - red) / divisor + 2, (red - green) / divisor + 4),
    )
    sextant = sextant + 6 * beside(turns, sextant)

    def channel(start: int) -> jax.Array:
        k = (start + sextant) / 6
        k = 6 * (k - jnp.floor(k))
        return jnp.maximum(value - chroma * jnp.clip(jnp.minimum(k, 4 - k), 0, 1), 0)

    return jnp.stack([channel(5), channel(3), channel(1)], axis=-1)
