"""The weight gradient of a depthwise convolution: for each tap, the sum of a product.

Each tap needs the images, shifted, and the gradient of the output once. Read from memory
they would cost as many passes as there are taps; so a loop takes a few examples at a time,
which stay in the cache for all of them. A sum over examples and positions at once is slow,
for XLA does not vectorise it: eight rows, written out one next to the other, are added up to
partial sums, and these are summed when all examples are done.
"""

from __future__ import annotations

import itertools
import math

import jax
import jax.numpy as jnp
from jax import lax

from cnn_jax.ops.algorithms import depthwise, layout
from cnn_jax.ops.geometry import Convolution

ROWS = 8  # added up in one expression: the partial sums are an eighth of the images
BLOCK_BYTES = 1 << 20  # of images at a time: the second-level cache of a core


def fits(conv: Convolution) -> bool:
    """The weight gradient of a depthwise convolution whose kernel is not large.

    There the channels play the batch, each one a group, and the examples the channels.
    """
    return (
        conv.batch_groups == conv.batch
        and conv.feature_groups == 1
        and math.prod(conv.out_space) <= depthwise.MOST_TERMS
        and depthwise.is_computable(conv)
    )


def apply(conv: Convolution, lhs: jax.Array, rhs: jax.Array) -> jax.Array:
    """The convolution, laid out as `conv.out_spec`, summed in float32 or better."""
    channels, examples, *space = conv.lhs_spec
    images = lax.transpose(lhs, (examples, *space, channels))
    images = depthwise.repeat_channels(images, conv.out_channels // conv.batch)
    out_channels, examples, *space = conv.rhs_spec
    gradient = lax.transpose(rhs, (examples, *space, out_channels))

    size = _examples_per_block(images)
    partial = _sum_over_blocks(conv, images, gradient, size)
    sums = [jnp.sum(tap, range(tap.ndim - 1)) for tap in partial]
    out = jnp.stack(sums).reshape(1, *conv.out_space, -1)
    return layout.from_channels_last(conv, out.astype(conv.out_dtype))


def _examples_per_block(images: jax.Array) -> int:
    """A divisor of their number, for about `BLOCK_BYTES`; two if they are larger.

    One at a time took three times as long as two.
    """
    examples = images.shape[0]
    most = max(BLOCK_BYTES // (images.dtype.itemsize * math.prod(images.shape[1:])), 2)
    return max(n for n in range(1, min(most, examples) + 1) if examples % n == 0)


def _sum_over_blocks(
    conv: Convolution, images: jax.Array, gradient: jax.Array, size: int
) -> list[jax.Array]:
    """The partial sums of every tap, those of all blocks of `size` examples added."""
    if size == images.shape[0]:
        return _partial_sums(conv, images, gradient)
    blocks = [x.reshape(-1, size, *x.shape[1:]) for x in (images, gradient)]

    def add(total: list[jax.Array], block: list[jax.Array]) -> tuple[list[jax.Array], None]:
        partial = _partial_sums(conv, *block)
        return [a + b for a, b in zip(total, partial, strict=True)], None

    shapes = jax.eval_shape(lambda *block: _partial_sums(conv, *block), *(x[0] for x in blocks))
    zeros = [jnp.zeros(shape.shape, shape.dtype) for shape in shapes]
    return lax.scan(add, zeros, blocks)[0]


def _partial_sums(conv: Convolution, images: jax.Array, gradient: jax.Array) -> list[jax.Array]:
    """For each tap [N, strips, *other positions, F], summed over the rows of a strip."""
    rows, *others = conv.kernel  # of this convolution, whose kernel is the gradient
    strips = math.ceil(rows / ROWS)
    strip = math.ceil(rows / strips)
    images = _cover(conv, images, strips * strip)
    gradient = _add_rows(conv, gradient, strips * strip - rows)
    spread, *spreads = conv.rhs_dilation
    lengths, origin = (strips, *others), (0,) * len(others)

    def product(start: list[int], row: int) -> jax.Array:
        first = (start[0] + row * spread, *start[1:])
        shifted = depthwise.window(images, first, lengths, (strip * spread, *spreads))
        ones = (1,) * len(others)
        return shifted * depthwise.window(gradient, (row, *origin), lengths, (strip, *ones))

    starts = [
        [tap * stride for tap, stride in zip(taps, conv.strides, strict=True)]
        for taps in itertools.product(*map(range, conv.out_space))
    ]
    return [depthwise.add_up([product(start, row) for row in range(strip)]) for start in starts]


def _cover(conv: Convolution, images: jax.Array, rows: int) -> jax.Array:
    """Images with dilation and padding as zeros: what some tap meets, and zeros to `rows`."""
    config = [(0, 0, 0)]
    for axis in range(conv.rank):
        (low, _), dilation = conv.padding[axis], conv.lhs_dilation[axis]
        window = (conv.kernel[axis] - 1) * conv.rhs_dilation[axis] + 1
        needed = (conv.out_space[axis] - 1) * conv.strides[axis] + window
        high = needed - low - ((conv.in_space[axis] - 1) * dilation + 1)
        config.append((low, high, dilation - 1))
    images = images.astype(depthwise.sum_dtype(conv))
    zero = jnp.zeros((), images.dtype)
    images = lax.pad(images, zero, [*config, (0, 0, 0)])
    # Not in the same step, which would put numbers of the images there: infinity times 0.
    more = (0, (rows - conv.kernel[0]) * conv.rhs_dilation[0], 0)
    return lax.pad(images, zero, [(0, 0, 0), more, *[(0, 0, 0)] * conv.rank])


def _add_rows(conv: Convolution, gradient: jax.Array, rows: int) -> jax.Array:
    """The gradient with `rows` rows of zeros at its end, and one more.

    The one more makes XLA write the block down. Else it reads it out of the whole array for
    each tap, by an index that it computes anew for each number, and does not vectorise.
    """
    gradient = gradient.astype(depthwise.sum_dtype(conv))
    config = [(0, 0, 0), (0, rows + 1, 0), *[(0, 0, 0)] * conv.rank]
    return lax.pad(gradient, jnp.zeros((), gradient.dtype), config)
