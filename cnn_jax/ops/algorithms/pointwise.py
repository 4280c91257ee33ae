"""A convolution that is one matrix product, computed as one.

A kernel of one position needs no windows: with a stride, the positions between are dropped
first. The weight gradient of such a convolution has the opposite form, a kernel as large as
the images and an output of one position, and is one product too. XLA's own weight gradient
transposes both operands first and took up to seven times as long.
"""

from __future__ import annotations

import jax
from jax import lax

from cnn_jax.ops.algorithms.layout import place
from cnn_jax.ops.geometry import Convolution, contract, pad_space, window


def fits(conv: Convolution) -> bool:
    """One group, and along each spatial axis a kernel or an output of one position."""
    lengths = zip(conv.kernel, conv.out_space, strict=True)
    return conv.feature_groups == conv.batch_groups == 1 and all(1 in pair for pair in lengths)


def apply(conv: Convolution, lhs: jax.Array, rhs: jax.Array) -> jax.Array:
    """The convolution as one product, summed over channels and kernel positions."""
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
