"""Sums over steps or samples, some at once: one program, and memory for only so many images."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from cnn_jax.errors import ModelError

AT_ONCE = 32  # images: enough to keep the cores busy, few enough for the memory

Tree = TypeVar("Tree")


def cut(number: int, batch: int, at_once: int) -> tuple[int, int]:
    """How many chunks, and how many of `number` in each of them.

    Args:
      number: of steps or samples, each of which is `batch` images.
      batch: B.
      at_once: the most images in a chunk, as far as B allows.

    Raises:
      ModelError: no steps or samples, or no images at once.
    """
    if number < 1 or at_once < 1:
        raise ModelError(
            f"there must be one step or sample at least, not {number}, and one image at once at "
            f"least, not {at_once}"
        )
    size = max(1, at_once // max(1, batch))
    chunks = -(-number // size)
    return chunks, -(-number // chunks)


def add_up(
    terms: Callable[[jax.Array], Tree], chunks: int | jax.Array, size: int, first: jax.Array | int
) -> Tree:
    """The sum of `terms(indices)` over chunks of indices `[size]`, from `first` on.

    Reverse mode goes through it where the number of chunks is not traced. Our convolutions are as
    fast in such a loop as outside; XLA's own, on a CPU, are not.
    """
    shapes = jax.eval_shape(terms, jax.ShapeDtypeStruct((size,), jnp.int32))
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    def add(chunk: jax.Array, total: Tree) -> Tree:
        indices = first + chunk.astype(jnp.int32) * size + jnp.arange(size, dtype=jnp.int32)
        return jax.tree.map(jnp.add, total, terms(indices))

    begin = jnp.zeros_like(chunks) if isinstance(chunks, jax.Array) else 0
    return lax.fori_loop(begin, chunks, add, nothing)
