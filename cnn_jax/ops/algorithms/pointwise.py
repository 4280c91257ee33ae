"""A convolution that is one matrix product, computed as one.

A kernel of one position needs no windows: with a stride, the positions between are dropped
first. The weight gradient of such a convolution has the opposite form, a kernel as large as
the images and an output of one position, and is one product too. XLA's own weight gradient
transposes both operands first and took up to seven times as long.

That product sums over examples and positions, the leading axes of both operands, for which
XLA on a CPU first writes one of them down transposed. Where that operand is yet to be
computed, it does so within the transposition, in an order in which nothing is vectorised. So
a large sum goes block by block of examples: a loop takes its operands as they are written,
and the transposed block stays in the cache. The training step of a ConvNeXt took 0.77 of the
time; that of a MobileNet, whose operands are cheap to compute, 1.05.
"""

from __future__ import annotations

import math

import jax
from jax import lax

from cnn_jax.ops.algorithms.blocks import examples_per_block, keeps_exact, sum_of_blocks
from cnn_jax.ops.algorithms.layout import place
from cnn_jax.ops.geometry import Convolution, contract, pad_space, window

BLOCK_BYTES = 2 << 20  # of both operands
LEAST_BYTES = 1 << 20  # of operands that a loop pays for: it takes some 20 microseconds


def fits(conv: Convolution) -> bool:
    """One group, and along each spatial axis a kernel or an output of one position."""
    lengths = zip(conv.kernel, conv.out_space, strict=True)
    return conv.feature_groups == conv.batch_groups == 1 and all(1 in pair for pair in lengths)


def apply(conv: Convolution, lhs: jax.Array, rhs: jax.Array) -> jax.Array:
    """The convolution as one product, or a sum of products over blocks of examples."""
    # Two blocks at least, for XLA makes no loop of one. Only a weight gradient has a kernel of
    # many positions; its input channels are the examples.
    size = min(examples_per_block(conv, BLOCK_BYTES), conv.in_channels // 2)
    large = (lhs.size + rhs.size) * conv.dtype.itemsize >= LEAST_BYTES
    if large and size > 0 and math.prod(conv.kernel) > 1 and keeps_exact(conv):
        return sum_of_blocks(conv, lhs, rhs, size, _product)
    return _product(conv, lhs, rhs)


def _product(conv: Convolution, lhs: jax.Array, rhs: jax.Array) -> jax.Array:
    sizes = [max(pair) for pair in zip(conv.kernel, conv.out_space, strict=True)]
    by_output = [length == 1 for length in conv.kernel]
    steps = [
        stride if outer else dilation
        for stride, dilation, outer in zip(conv.strides, conv.rhs_dilation, by_output, strict=True)
    ]
    lhs = window(conv, pad_space(conv, lhs), [0] * conv.rank, sizes, steps)

    axes = [f"{i}" for i in range(conv.rank)]
    outer = [axis for axis, is_outer in zip(axes, by_output, strict=True) if is_outer]
    lhs_labels = place(conv.lhs_spec, ["batch", "in", *axes])
    rhs_labels = place(conv.rhs_spec, ["out", "in", *axes])
    out_labels = place(conv.out_spec, ["batch", "out", *axes])
    ones = tuple(i for i, label in enumerate(rhs_labels) if label in outer)
    product = contract(
        lhs,
        lhs_labels,
        lax.squeeze(rhs, ones),
        [label for label in rhs_labels if label not in outer],
        [label for label in out_labels if label not in axes or label in outer],
        precision=conv.precision,
        preferred_element_type=conv.out_dtype,
    )
    return product.reshape(conv.out_shape)
