"""What the algorithms for narrow groups, depthwise convolution above all, share.

They compute with examples first and channels last, whatever the layout: neighbouring
channels then are neighbours in memory and fill a vector register.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from cnn_jax.ops.geometry import Convolution

# Of the terms that are written out, tap by tap; 49 of them took up to a second to compile.
MOST_TERMS = 128


def is_computable(conv: Convolution) -> bool:
    """Floating-point operands with spatial axes, and none of the arrays empty."""
    lengths = (*conv.lhs_shape, *conv.rhs_shape, *conv.out_shape)
    return bool(jnp.issubdtype(conv.dtype, jnp.floating)) and conv.rank > 0 and 0 not in lengths


def sum_dtype(conv: Convolution) -> jnp.dtype:
    """The dtype to sum in: at least float32."""
    wide = max(jnp.dtype(conv.dtype).itemsize, jnp.dtype(conv.out_dtype).itemsize) > 4
    return jnp.dtype(jnp.float64 if wide else jnp.float32)


def repeat_channels(x: jax.Array, times: int) -> jax.Array:
    """Each channel `times` times over, as the output channels of one group follow another."""
    return x if times == 1 else jnp.repeat(x, times, axis=-1)


def window(
    x: jax.Array, start: Sequence[int], lengths: Sequence[int], steps: Sequence[int]
) -> jax.Array:
    """From [N, *space, C], along the spatial axes, `lengths` entries from `start` by `steps`."""
    limits = [
        first + (length - 1) * step + 1
        for first, length, step in zip(start, lengths, steps, strict=True)
    ]
    return lax.slice(x, (0, *start, 0), (x.shape[0], *limits, x.shape[-1]), (1, *steps, 1))


def add_up(terms: Sequence[jax.Array]) -> jax.Array:
    """The sum of one or more arrays, as one expression, from the first to the last."""
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total
