"""Several convolutions of the same shapes at once: one for each member of a population."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

# Written out one by one up to here, which takes the time of as many networks (0.97 to 1.02)
# and as many times as long to compile. Beyond, in a loop: compiled in the time of one, and
# a quarter slower in a whole training step, since XLA fuses nothing across a loop's edge.
UNROLLED = 8


def each_member(
    lhs: jax.Array, rhs: jax.Array, one: Callable[[jax.Array, jax.Array], jax.Array]
) -> jax.Array:
    """`one` for each pair along the leading axes, stacked along a leading axis."""
    # Under `jax.export` the number may be known only when the program runs.
    if isinstance(lhs.shape[0], int) and lhs.shape[0] <= UNROLLED:
        return jnp.stack([one(lhs[i], rhs[i]) for i in range(lhs.shape[0])])
    return lax.map(lambda pair: one(*pair), (lhs, rhs))
