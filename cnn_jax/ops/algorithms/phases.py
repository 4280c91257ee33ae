"""A convolution of dilated images, as a transposed convolution is one, without the zeros.

The input gradient of a convolution with stride s spreads the output's gradient s apart and
fills in zeros: all but one in s^rank of the products are with zeros. The outputs at
positions of the same remainder modulo s, a phase, meet the same entries of the kernel, so
each phase is a small convolution of the images as they are. Afterwards they are interleaved.
"""

from __future__ import annotations

import itertools
import math

import jax
import jax.numpy as jnp
from jax import lax

from cnn_jax.ops.algorithms import taps
from cnn_jax.ops.algorithms.blocks import BLOCK_BYTES, blocks_of_batch, keeps_exact
from cnn_jax.ops.algorithms.layout import channels_last, from_channels_last
from cnn_jax.ops.geometry import Convolution, describe


def fits(conv: Convolution) -> bool:
    """One group, dilated images, and otherwise neither stride nor dilation."""
    one_group = conv.feature_groups == conv.batch_groups == 1
    plain = all(step == 1 for step in (*conv.strides, *conv.rhs_dilation))
    return one_group and plain and max(conv.lhs_dilation, default=1) > 1 and keeps_exact(conv)


def apply(conv: Convolution, lhs: jax.Array, rhs: jax.Array) -> jax.Array:
    """The convolution by phases, block by block."""
    out_entries = math.prod(conv.out_space) * conv.out_channels
    size = max(1, BLOCK_BYTES // max(out_entries * conv.dtype.itemsize, 1))
    return blocks_of_batch(conv, lhs, rhs, size, _block)


def _block(conv: Convolution, lhs: jax.Array, rhs: jax.Array) -> jax.Array:
    steps = conv.lhs_dilation
    lengths = [-(-n // step) for n, step in zip(conv.out_space, steps, strict=True)]
    phases = [
        channels_last(conv.out_spec, _phase(conv, lhs, rhs, first, lengths))
        for first in itertools.product(*map(range, steps))
    ]
    # [*steps, batch, *lengths, channels] to [batch, length, step, length, step, ..., channels].
    rank = conv.rank
    stacked = jnp.stack(phases).reshape(*steps, *phases[0].shape)
    order = [rank, *(a for i in range(rank) for a in (rank + 1 + i, i)), 2 * rank + 1]
    whole = [n * step for n, step in zip(lengths, steps, strict=True)]
    out = lax.transpose(stacked, order).reshape(conv.batch, *whole, conv.out_channels)
    out = lax.slice(out, (0,) * out.ndim, (conv.batch, *conv.out_space, conv.out_channels))
    return from_channels_last(conv, out)


def _phase(
    conv: Convolution,
    lhs: jax.Array,
    rhs: jax.Array,
    first: tuple[int, ...],
    lengths: list[int],
) -> jax.Array:
    """The outputs at `first`, `first` + dilation, ..., `lengths` of them along each axis."""
    steps = conv.lhs_dilation
    lows = [low for low, _ in conv.padding]
    starts, strides = [0] * rhs.ndim, [1] * rhs.ndim
    padding = []
    for axis, k, low, step, position, length, n in zip(
        conv.rhs_spec[2:], first, lows, steps, first, lengths, conv.in_space, strict=True
    ):
        starts[axis], strides[axis] = (low - k) % step, step
        # Output u * step + position meets entry starts + j * step at image u + j - phase_low.
        phase_low = (low - position - starts[axis]) // step
        taken = max(0, -(-(rhs.shape[axis] - starts[axis]) // step))
        padding.append((phase_low, length + taken - 1 - n - phase_low))
    if any(start >= rhs.shape[axis] for axis, start in enumerate(starts)):
        shape = list(conv.out_shape)
        for axis, length in zip(conv.out_spec[2:], lengths, strict=True):
            shape[axis] = length
        return jnp.zeros(shape, conv.out_dtype)
    part = lax.slice(rhs, starts, rhs.shape, strides)
    params = {**conv.params, "padding": tuple(padding), "lhs_dilation": (1,) * conv.rank}
    return taps.apply(describe(lhs, part, params), lhs, part)
