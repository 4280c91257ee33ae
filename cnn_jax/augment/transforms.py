"""The transforms, each a pure function of one key per example and a batch."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax

Batch = dict[str, jax.Array]


def translate(
    keys: jax.Array, batch: Batch, pixels: int, padding: Literal["zero", "reflect"] = "zero"
) -> Batch:
    """Shift by a whole number of pixels, uniform in [-pixels, pixels] along each axis.

    Args:
      keys: `[B]`, one for each example.
      batch: `image` `[B, H, W, C]` and, if there is one, `mask` `[B, H, W]`, which moves
        alike; what it uncovers is always 0.
      pixels: largest shift.
      padding: `zero` fills with black, `reflect` mirrors at the border.
    """
    offset = jax.vmap(lambda key: jax.random.randint(key, (2,), 0, 2 * pixels + 1))(keys)
    mode: Literal["constant", "reflect"] = "constant" if padding == "zero" else "reflect"
    moved = {"image": _shift(batch["image"], offset, pixels, mode)}
    if "mask" in batch:
        moved["mask"] = _shift(batch["mask"][..., None], offset, pixels, "constant")[..., 0]
    return {**batch, **moved}


def _shift(
    images: jax.Array, offset: jax.Array, pixels: int, mode: Literal["constant", "reflect"]
) -> jax.Array:
    margin = ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0))
    padded = jnp.pad(images, margin, mode=mode)

    def window(image: jax.Array, start: jax.Array) -> jax.Array:
        return lax.dynamic_slice(image, (start[0], start[1], 0), images.shape[1:])

    return jax.vmap(window)(padded, offset)


def flip(keys: jax.Array, batch: Batch) -> Batch:
    """Mirror left and right with probability 1/2; `mask` with its image."""
    mirrored = jax.vmap(lambda key: jax.random.bernoulli(key))(keys)

    def choose(x: jax.Array) -> jax.Array:
        return jnp.where(mirrored.reshape((-1,) + (1,) * (x.ndim - 1)), x[:, :, ::-1], x)

    return {**batch, **{name: choose(batch[name]) for name in ("image", "mask") if name in batch}}


def cutout(keys: jax.Array, batch: Batch, side: int) -> Batch:
    """Set a square of `side` pixels to zero, its centre uniform over the image.

    The square is cut at the border, as in DeVries and Taylor, "Improved regularization of
    convolutional neural networks with cutout", 2017. `mask` is left alone.
    """
    image = batch["image"]
    _, height, width, _ = image.shape

    def covered(key: jax.Array) -> jax.Array:
        row, column = jax.random.randint(key, (2,), 0, jnp.array([height, width]))
        top, left = row - side // 2, column - side // 2
        rows, columns = jnp.arange(height)[:, None], jnp.arange(width)[None, :]
        return (rows >= top) & (rows < top + side) & (columns >= left) & (columns < left + side)

    hole = jax.vmap(covered)(keys)[..., None]
    return {**batch, "image": jnp.where(hole, jnp.zeros_like(image), image)}


def mixup(keys: jax.Array, batch: Batch, alpha: float) -> Batch:
    """Mix each image with another of the batch, and say how much of which label is in it.

    image <- (1 - s) image + s image'; s = min(b, 1 - b), b ~ Beta(alpha, alpha): the
    first label always has the larger share (Zhang et al., "mixup", 2018, whose mixing is
    symmetric, so that only the order of the two labels differs). The valid examples, which
    lie in front, are paired first with last, second with second to last, and so on; since
    the order of training is random, so are the pairs.
    """
    image, label = batch["image"], batch["label"]
    size = image.shape[0]
    valid = batch.get("valid", jnp.ones(size, dtype=bool))
    position = jnp.arange(size)
    partner = jnp.where(valid, valid.sum() - 1 - position, position)
    beta = jax.vmap(lambda key: jax.random.beta(key, alpha, alpha, dtype=jnp.float32))(keys)
    share = jnp.minimum(beta, 1 - beta)
    s = share.reshape((-1,) + (1,) * (image.ndim - 1))
    return {
        **batch,
        "image": (1 - s) * image + s * image[partner],
        "mix_label": label[partner],
        "mix_share": share,
    }
