"""Noise and blur."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import lax

from cnn_jax.augment.batch import Batch, beside, uniform


def noise(keys: jax.Array, batch: Batch, deviation: float) -> Batch:
    """Add Gaussian noise to every value, then cut to 0..1.

    Its standard deviation is drawn for each example, uniform in [0, deviation); 1 is the
    whole range from black to white.
    """
    image = batch["image"]
    keys = jax.vmap(jax.random.split)(keys)
    sigma = uniform(keys[:, 0], 0, deviation)
    normal = jax.vmap(lambda key: jax.random.normal(key, image.shape[1:], jnp.float32))(keys[:, 1])
    return {**batch, "image": jnp.clip(image + beside(sigma, image) * normal, 0, 1)}


def blur_radius(deviation: float) -> int:
    """Pixels on each side that a blur of this standard deviation looks at: 3 deviations."""
    return math.ceil(3 * deviation)


def blur(keys: jax.Array, batch: Batch, deviation: float) -> Batch:
    """Convolve with a Gaussian; the image is mirrored at its border.

    Its standard deviation is drawn for each example, uniform in [0, deviation) pixels.
    The slices of a volume are blurred one by one.
    """
    sigma = uniform(keys, 0, deviation)
    blurred = gaussian(batch["image"], sigma, blur_radius(deviation))
    return {**batch, "image": jnp.clip(blurred, 0, 1)}


def gaussian(image: jax.Array, sigma: jax.Array, radius: int) -> jax.Array:
    """Images `[B, ..., H, W, C]` convolved along both axes with Gaussians of width `sigma` `[B]`.

    Args:
      image: float32.
      sigma: standard deviation in pixels; 0 leaves the image as it is.
      radius: where the Gaussian is cut off, below the height and the width.
    """
    distance = jnp.arange(-radius, radius + 1, dtype=jnp.float32)[None]
    # At a twentieth of a pixel the neighbours' weights are 0 in float32 already.
    weights = jnp.exp(-0.5 * (distance / jnp.maximum(sigma, 0.05)[:, None]) ** 2)
    weights = weights / weights.sum(axis=1, keepdims=True)
    for axis in (image.ndim - 3, image.ndim - 2):
        margin = [(radius, radius) if a == axis else (0, 0) for a in range(image.ndim)]
        padded = jnp.pad(image, margin, mode="reflect")
        length = image.shape[axis]
        image = sum(
            (
                beside(weights[:, k], image) * lax.slice_in_dim(padded, k, k + length, axis=axis)
                for k in range(2 * radius + 1)
            ),
            start=jnp.zeros_like(image),
        )
    return image
