"""A grouped convolution as one convolution for each group.

XLA's CPU kernels know one group. For more it has a plain loop that ran the 32 groups of
ResNeXt at a sixth of the speed of a convolution for each, and their weight gradient at a
five-hundredth.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from cnn_jax.ops.algorithms import stock
from cnn_jax.ops.geometry import Convolution, describe

# Written out one by one up to here; beyond, where compiling would take long, in a loop, which
# costs up to twice the time.
UNROLLED = 32


def fits(conv: Convolution) -> bool:
    """More than one group, of features or of the batch."""
    return conv.feature_groups * conv.batch_groups > 1


def apply(conv: Convolution, lhs: jax.Array, rhs: jax.Array) -> jax.Array:
    """The convolution, laid out as `conv.out_spec`, each group by XLA's own."""
    groups = conv.feature_groups * conv.batch_groups
    params = {**conv.params, "feature_group_count": 1, "batch_group_count": 1}
    split = conv.lhs_spec[1] if conv.batch_groups == 1 else conv.lhs_spec[0]

    def one(pair: tuple[jax.Array, jax.Array]) -> jax.Array:
        return stock.apply(describe(*pair, params), *pair)

    if groups <= UNROLLED:
        pairs = zip(
            jnp.split(lhs, groups, split), jnp.split(rhs, groups, conv.rhs_spec[0]), strict=True
        )
        return lax.concatenate([one(pair) for pair in pairs], conv.out_spec[1])
    operands = _first(lhs, split, groups), _first(rhs, conv.rhs_spec[0], groups)
    return _last(lax.map(one, operands), conv.out_spec[1])


def _first(x: jax.Array, axis: int, groups: int) -> jax.Array:
    """`x` with the groups of `axis` as an axis of their own, in front."""
    apart = x.reshape(*x.shape[:axis], groups, -1, *x.shape[axis + 1 :])
    return jnp.moveaxis(apart, axis, 0)


def _last(x: Any, axis: int) -> jax.Array:
    """The inverse of `_first`."""
    return lax.collapse(jnp.moveaxis(x, 0, axis), axis, axis + 2)
