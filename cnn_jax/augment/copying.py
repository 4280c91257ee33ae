"""Copying what is marked in one image into another, mask and all.

Simple copy-paste (Ghiasi et al. 2021): of few marked examples it makes many, each on other ground.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from cnn_jax.augment.batch import Batch, following
from cnn_jax.augment.defects import mean_of_neighbours


def copy_paste(keys: jax.Array, batch: Batch, probability: float) -> Batch:
    """A batch in some of whose images lies what another one's mask marks.

    The other is the next valid image, of the last the first. What is marked is mirrored along
    either axis, each with probability 1/2, and with probability 1/2 also moved to anywhere, around
    the borders; it is made lighter or darker as the images' means differ, and its edge is a pixel
    wide. The mask is the other's where that marks something.

    Args:
      keys: of each image, `[B]`.
      batch: with `image` float32 `[B, H, W, C]` in 0..1, and `mask` `[B, H, W]`.
      probability: that this is done to an image.
    """
    images, masks = batch["image"], batch["mask"]
    partner = following(len(images), batch.get("valid"))
    changed, marked = jax.vmap(_pasted, in_axes=(0, 0, 0, 0, 0, None))(
        keys, images, masks, images[partner], masks[partner], probability
    )
    return {**batch, "image": changed, "mask": marked}


def _pasted(
    key: jax.Array,
    image: jax.Array,
    mask: jax.Array,
    other: jax.Array,
    other_mask: jax.Array,
    probability: float,
) -> tuple[jax.Array, jax.Array]:
    of_some, of_turn, of_shift, of_move = jax.random.split(key, 4)
    height, width = mask.shape
    shift = jax.random.randint(of_shift, (2,), 0, jnp.array([height, width]))
    shift = jnp.where(jax.random.bernoulli(of_move), shift, 0)
    turn = jax.random.bernoulli(of_turn, 0.5, (2,))

    def moved(x: jax.Array) -> jax.Array:
        x = jnp.where(turn[0], x[::-1], x)
        x = jnp.where(turn[1], x[:, ::-1], x)
        return jnp.roll(x, shift, (0, 1))

    there = jnp.where(jax.random.bernoulli(of_some, probability), moved(other_mask), 0)
    soft = mean_of_neighbours((there > 0).astype(jnp.float32))[..., jnp.newaxis]
    level = image.mean() / jnp.maximum(other.mean(), 1e-3)
    new = jnp.clip(moved(other) * level, 0, 1)
    return image * (1 - soft) + new * soft, jnp.where(there > 0, there, mask)
