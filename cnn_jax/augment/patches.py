"""Cutting a part out of each image: what networks are trained on where images are large."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from cnn_jax.augment.batch import Batch


def window_of(image_shape: tuple[int, ...], side: int) -> tuple[int, ...]:
    """Sides of a patch of images (H, W, C) or (D, H, W, C): a shorter axis is taken whole."""
    return tuple(min(side, length) for length in image_shape[:-1])


def patch(keys: jax.Array, batch: Batch, side: int, marked: float) -> Batch:
    """A random part of each image, at its own scale, and of `mask` the same.

    With probability `marked` the patch lies around a pixel that the mask marks, each of them
    equally likely, as far as the image's border allows (nnU-Net, Isensee et al. 2021); else, and
    where nothing is marked, anywhere.

    Args:
      keys: `[B]`, one for each example.
      batch: `image` `[B, H, W, C]` or `[B, D, H, W, C]` and, if there is one, `mask`.
      side: pixels along each axis; axes that are shorter are taken whole.
      marked: from 0 to 1.
    """
    image = batch["image"]
    spatial = image.shape[1:-1]
    window = window_of(image.shape[1:], side)
    free = jnp.array([n - w for n, w in zip(spatial, window, strict=True)])
    half = jnp.array([w // 2 for w in window])

    def start(key: jax.Array, mask: jax.Array | None) -> jax.Array:
        where, which, whether = jax.random.split(key, 3)
        anywhere = jax.random.randint(where, free.shape, 0, free + 1)
        if mask is None:
            return anywhere
        upto = jnp.cumsum((mask > 0).ravel())
        number = jax.random.randint(which, (), 0, jnp.maximum(upto[-1], 1))
        pixel = jnp.stack(jnp.unravel_index((upto > number).argmax(), spatial))
        around = jnp.clip(pixel - half, 0, free)
        chosen = jax.random.bernoulli(whether, marked) & (upto[-1] > 0)
        return jnp.where(chosen, around, anywhere)

    masks = batch.get("mask")
    starts = jax.vmap(start, in_axes=(0, None if masks is None else 0))(keys, masks)

    def cut(x: jax.Array, at: jax.Array) -> jax.Array:
        extra = x.ndim - len(spatial)
        return lax.dynamic_slice(x, (*at, *(0,) * extra), (*window, *x.shape[len(spatial) :]))

    parts = {"image": jax.vmap(cut)(image, starts)}
    if masks is not None:
        parts["mask"] = jax.vmap(cut)(masks, starts)
    return {**batch, **parts}
