"""Sum over kernel positions of products of shifted windows.

Quick where there is almost nothing to multiply at each position: few positions, as in a
phase of a transposed convolution, or one input channel, where each product is elementwise
(LeNet's first layer, forward: 0.4 ms instead of 5).
"""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
from jax import lax

from cnn_jax.ops.algorithms.blocks import keeps_exact
from cnn_jax.ops.algorithms.layout import place
from cnn_jax.ops.geometry import Convolution, contract, pad_space, window


def fits(conv: Convolution) -> bool:
    """One group, a kernel, and sums that are as exact in parts as at once."""
    one_group = conv.feature_groups == conv.batch_groups == 1
    return one_group and keeps_exact(conv) and 0 not in conv.kernel


def apply(conv: Convolution, lhs: jax.Array, rhs: jax.Array) -> jax.Array:
    """out[p] = sum over k of lhs[p * stride + k * dilation] rhs[k]."""
    padded = pad_space(conv, lhs)
    axes = [f"{axis}" for axis in range(conv.rank)]
    lhs_labels = place(conv.lhs_spec, ["batch", "in", *axes])
    rhs_labels = place(conv.rhs_spec, ["out", "in", *axes])
    out_labels = place(conv.out_spec, ["batch", "out", *axes])
    tap_labels = [label for label in rhs_labels if label not in axes]
    total = jnp.zeros((), conv.out_dtype)
    for position in itertools.product(*map(range, conv.kernel)):
        start = [k * step for k, step in zip(position, conv.rhs_dilation, strict=True)]
        product = contract(
            window(conv, padded, start, conv.out_space, conv.strides),
            lhs_labels,
            _tap(conv, rhs, position),
            tap_labels,
            out_labels,
            precision=conv.precision,
            preferred_element_type=conv.out_dtype,
        )
        total = product if total.ndim == 0 else total + product
    return total


def _tap(conv: Convolution, rhs: jax.Array, position: tuple[int, ...]) -> jax.Array:
    starts, limits = [0] * rhs.ndim, list(rhs.shape)
    for axis, k in zip(conv.rhs_spec[2:], position, strict=True):
        starts[axis], limits[axis] = k, k + 1
    return lax.squeeze(lax.slice(rhs, starts, limits), conv.rhs_spec[2:])
