"""RISE: the mean of random masks, each weighted by the answer to what it leaves visible."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from cnn_jax.errors import ModelError
from cnn_jax.explain.answers import Answers, check_images, chosen, working_dtype
from cnn_jax.explain.chunks import AT_ONCE, add_up, cut


def rise(
    logits: Answers,
    image: jax.Array,
    target: jax.Array,
    key: jax.Array,
    *,
    samples: int,
    cells: int = 7,
    keep: float = 0.5,
    at_once: int = AT_ONCE,
) -> jax.Array:
    """E[p(x M) M] / E[M]: the mean answer when a pixel is visible (Petsiuk et al. 2018, RISE).

    p is the probability of the target, the softmax of the logits. A mask M is a grid of cells
    that are 1 with probability `keep` and else 0, enlarged bilinearly to one cell more than the
    image and cut out of that at random; E[M] is `keep` at every pixel. What is not visible is 0,
    the mean of images that are normalised. Of p that does not depend on the image, p is given
    everywhere: only differences between pixels speak. The error falls as 1 / sqrt(samples), and
    is at most about p sqrt((1 - keep) / (keep samples)).

    The masks are the same for every image, so that what an image gets does not depend on those
    beside it; nor does it depend on `at_once`. Pure, and may be jitted.

    Args:
      logits: `[B, H, W, C]` to `[B, K]`; in evaluation, so that an image answers for itself.
      image: float `[B, H, W, C]`, as `logits` takes it.
      target: int32 `[B]`, the class of each image.
      key: random key.
      samples: of the mask; the paper takes 4,000 to 8,000.
      cells: of the grid along each side; a cell is ceil(H / cells) by ceil(W / cells) pixels.
      keep: probability that a cell is visible.
      at_once: images that `logits` is given at the same time, but for B if that is more.

    Returns:
      `[B, H, W]`, not negative; float32, or float64 for images that are.

    Raises:
      ModelError: images, targets or logits of another shape or kind, a class that is none (NaN
        under `jit`), no samples, or cells or a probability that make no mask.
    """
    check_images(image, target)
    batch, height, width, _ = image.shape
    if not 1 <= cells <= min(height, width) or not 0 < keep < 1:
        raise ModelError(
            f"cells={cells} must be from 1 to {min(height, width)}, the shorter side of the "
            f"images, and keep={keep} between 0 and 1"
        )
    chunks, size = cut(samples, batch, at_once)
    dtype = working_dtype(image)

    def terms(indices: jax.Array) -> jax.Array:
        keys = jax.vmap(lambda index: jax.random.fold_in(key, index))(indices)
        masks = jax.vmap(lambda one: mask(one, height, width, cells, keep))(keys).astype(dtype)
        masked = masks[:, None, :, :, None] * image.astype(dtype)[None]
        x = masked.reshape(-1, *image.shape[1:]).astype(image.dtype)
        answers = chosen(jax.nn.softmax(logits(x).astype(dtype)), target).reshape(-1, batch)
        # The last chunk may be longer than what is left.
        counted = jnp.where(indices[:, None] < samples, answers, 0)
        return jnp.einsum("mb,mhw->bhw", counted, masks, precision="highest")

    return add_up(terms, chunks, size, 0) / (samples * keep)


def mask(key: jax.Array, height: int, width: int, cells: int, keep: float) -> jax.Array:
    """A mask of `rise`, float32 `[H, W]` from 0 to 1."""
    of_grid, of_top, of_left = jax.random.split(key, 3)
    # The paper rounds the sides of cells down, its code up: rounded down, the cut can be larger
    # than what it is taken from.
    tall, wide = -(-height // cells), -(-width // cells)
    grid = jax.random.bernoulli(of_grid, keep, (cells, cells)).astype(jnp.float32)
    large = jax.image.resize(grid, ((cells + 1) * tall, (cells + 1) * wide), "bilinear")
    top = jax.random.randint(of_top, (), 0, tall)
    left = jax.random.randint(of_left, (), 0, wide)
    return lax.dynamic_slice(large, (top, left), (height, width))
