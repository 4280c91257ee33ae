"""Transforms that mix two examples of the batch, and say how much of which label is in it.

They add `mix_label`, the partner's label, and `mix_share`, float32 `[B]`, its share. The
valid examples, which lie in front, are paired first with last, second with second to last,
and so on; since the order of training is random, so are the pairs.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from cnn_jax.augment.batch import Batch, beside
from cnn_jax.augment.covering import box


def mixup(keys: jax.Array, batch: Batch, alpha: float) -> Batch:
    """Mix each image with another of the batch.

    image <- (1 - s) image + s image'; s = min(b, 1 - b), b ~ Beta(alpha, alpha): the
    first label always has the larger share (Zhang et al., "mixup", 2018, whose mixing is
    symmetric, so that only the order of the two labels differs). `mask` is left alone.
    """
    image, label = batch["image"], batch["label"]
    partner = _partner(batch)
    beta = _beta(keys, alpha)
    share = jnp.minimum(beta, 1 - beta)
    s = beside(share, image)
    return {
        **batch,
        "image": (1 - s) * image + s * image[partner],
        "mix_label": label[partner],
        "mix_share": share,
    }


def cutmix(keys: jax.Array, batch: Batch, alpha: float) -> Batch:
    """Paste a box of another image of the batch into each (Yun et al., "CutMix", 2019).

    The box has the aspect ratio of the image and the share b ~ Beta(alpha, alpha) of its
    area; its centre is uniform over the image, and it is cut at the border. `mix_share` is
    the share of the pixels that it then covers, exactly. `mask` is pasted alike; in a
    volume the box goes through all slices.
    """
    image, label = batch["image"], batch["label"]
    height, width = image.shape[-3:-1]
    partner = _partner(batch)
    keys = jax.vmap(jax.random.split)(keys)
    side = jnp.sqrt(_beta(keys[:, 0], alpha))

    def pasted(key: jax.Array, side: jax.Array) -> jax.Array:
        sides = jnp.array([height, width])
        centre = jax.random.randint(key, (2,), 0, sides)
        size = jnp.floor(side * sides.astype(jnp.float32)).astype(jnp.int32)
        return box((height, width), list(centre - size // 2), list(size))

    inside = jax.vmap(pasted)(keys[:, 1], side)
    share = inside.mean(axis=(1, 2), dtype=jnp.float32)
    inside = inside.reshape(len(inside), *(1,) * (image.ndim - 4), height, width)
    mixed = {"image": jnp.where(inside[..., None], image[partner], image)}
    if "mask" in batch:
        mixed["mask"] = jnp.where(inside, batch["mask"][partner], batch["mask"])
    return {**batch, **mixed, "mix_label": label[partner], "mix_share": share}


def either(keys: jax.Array, first: Batch, second: Batch) -> Batch:
    """Each example from one of two batches, with probability 1/2."""
    chosen = jax.vmap(lambda key: jax.random.bernoulli(key))(keys)
    return {
        name: jnp.where(beside(chosen, first[name]), first[name], second[name]) for name in first
    }


def _partner(batch: Batch) -> jax.Array:
    size = batch["image"].shape[0]
    valid = batch.get("valid", jnp.ones(size, dtype=bool))
    position = jnp.arange(size)
    return jnp.where(valid, valid.sum() - 1 - position, position)


def _beta(keys: jax.Array, alpha: float) -> jax.Array:
    draw = jax.vmap(lambda key: jax.random.beta(key, alpha, alpha, dtype=jnp.float32))
    return draw(keys)
