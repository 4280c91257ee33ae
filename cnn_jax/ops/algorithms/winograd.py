"""Winograd's minimal filtering for 3-tap kernels: F(4, 3) along each spatial axis.

Four outputs of a three-tap filter take six products instead of twelve (Lavin and Gray 2016,
"Fast Algorithms for Convolutional Neural Networks"): y = A^T ((G w) * (B^T d)), d six
neighbouring inputs. Along two axes that is a quarter of the products, each a matrix product
over channels. The weight gradient is the transpose of the same identity,
dw = G^T (sum over tiles of (A dy) * (B^T d)).

The transformed inputs are 2.25 times the inputs, so a block of examples is done at a time.
The transforms cost accuracy: in float32, with 64 to 256 channels, the largest error was up
to 6 times that of stock, 1e-5 of the outputs' spread instead of 3e-6 (the tests allow 10).
So a convolution that asks for `Precision.HIGHEST`, or one in 16 bits, is not computed so.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cnn_jax.ops.algorithms.blocks import blocks_of_batch, keeps_exact, sum_of_blocks
from cnn_jax.ops.algorithms.layout import channels_last, from_channels_last
from cnn_jax.ops.geometry import Convolution

BLOCK_BYTES = 16 << 20
TILE = 4  # outputs of a tile
TAPS = 3
POINTS = 6  # TILE + TAPS - 1

# Where the polynomials are evaluated, besides infinity. The textbook's 0, 1, -1, 2, -2 give
# four times the largest error of these, whose powers are as exact in binary.
_FINITE_POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)


def _matrices() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """B^T, G and A^T of Toom and Cook's interpolation, infinity as the last point."""
    inputs = np.zeros((POINTS, POINTS))
    kernel = np.zeros((POINTS, TAPS))
    outputs = np.zeros((TILE, POINTS))
    for i, point in enumerate(_FINITE_POINTS):
        others = np.delete(_FINITE_POINTS, i)
        inputs[i, : POINTS - 1] = np.poly(others)[::-1]
        kernel[i] = point ** np.arange(TAPS) / np.prod(point - others)
        outputs[:, i] = point ** np.arange(TILE)
    inputs[-1] = np.poly(_FINITE_POINTS)[::-1]
    kernel[-1, -1] = outputs[-1, -1] = 1
    return inputs, kernel, outputs


_INPUT, _KERNEL, _OUTPUT = _matrices()


def fits(conv: Convolution) -> bool:
    """One group, no strides or dilations, three taps along each axis, or three outputs."""
    steps = (*conv.strides, *conv.lhs_dilation, *conv.rhs_dilation)
    plain = conv.rank > 0 and all(step == 1 for step in steps)
    one_group = conv.feature_groups == conv.batch_groups == 1
    three = set(conv.kernel) == {TAPS} or is_weight_gradient(conv)
    highest = lax.Precision.HIGHEST in (conv.precision or ())
    return plain and one_group and three and keeps_exact(conv) and not highest


def is_weight_gradient(conv: Convolution) -> bool:
    """Whether there are three outputs along each axis, and the kernel is not three taps."""
    return set(conv.out_space) == {TAPS} and set(conv.kernel) != {TAPS}


def apply(conv: Convolution, lhs: jax.Array, rhs: jax.Array) -> jax.Array:
    """The convolution, or weight gradient, block of examples by block."""
    gradient = is_weight_gradient(conv)
    tiles = _tiles(conv.kernel if gradient else conv.out_space)
    channels = conv.out_channels + (conv.batch if gradient else conv.in_channels)
    entries = math.prod(tiles) * POINTS**conv.rank * channels
    size = max(1, BLOCK_BYTES // max(entries * conv.dtype.itemsize, 1))
    if gradient:
        return sum_of_blocks(conv, lhs, rhs, size, _weight_gradient)
    return blocks_of_batch(conv, lhs, rhs, size, functools.partial(_forward, _kernel(conv, rhs)))


def _tiles(lengths: Sequence[int]) -> list[int]:
    return [-(-length // TILE) for length in lengths]


def _kernel(conv: Convolution, rhs: jax.Array) -> jax.Array:
    """The transformed kernel, `[POINTS**rank, in, out]`."""
    order = (*reversed(conv.rhs_spec[2:]), conv.rhs_spec[1], conv.rhs_spec[0])
    kernel = _multiply(conv, _KERNEL, lax.transpose(rhs, order))
    return kernel.reshape(POINTS**conv.rank, conv.in_channels, conv.out_channels)


def _forward(kernel: jax.Array, conv: Convolution, lhs: jax.Array, rhs: jax.Array) -> jax.Array:
    tiles = _tiles(conv.out_space)
    inputs = _inputs(conv, channels_last(conv.lhs_spec, lhs), tiles)
    y = _multiply(conv, _OUTPUT, _products(conv, inputs, kernel, ((2,), (1,))))
    # [points of each tile, last axis first; batch; tiles; channels] to [batch, space, channels].
    rank = conv.rank
    y = y.reshape(*(TILE,) * rank, conv.batch, *tiles, conv.out_channels)
    order = [rank, *(a for i in range(rank) for a in (rank + 1 + i, rank - 1 - i)), 2 * rank + 1]
    covered = [TILE * count for count in tiles]
    y = lax.transpose(y, order).reshape(conv.batch, *covered, conv.out_channels)
    y = lax.slice(y, (0,) * y.ndim, (conv.batch, *conv.out_space, conv.out_channels))
    return from_channels_last(conv, y)


def _weight_gradient(conv: Convolution, lhs: jax.Array, rhs: jax.Array) -> jax.Array:
    # The channels play the batch, the examples the channels.
    tiles = _tiles(conv.kernel)
    examples_first = (conv.lhs_spec[1], conv.lhs_spec[0], *conv.lhs_spec[2:])
    inputs = _inputs(conv, channels_last(examples_first, lhs), tiles)
    gradients = channels_last((conv.rhs_spec[1], conv.rhs_spec[0], *conv.rhs_spec[2:]), rhs)
    covered = [(0, TILE * t - n) for t, n in zip(tiles, conv.kernel, strict=True)]
    gradients = _tile_transform(_OUTPUT.T, _pad(gradients, covered), tiles)
    dw = _products(conv, inputs, gradients, ((1,), (1,)))
    rank = conv.rank
    dw = _multiply(conv, _KERNEL.T, dw).reshape(*(TAPS,) * rank, conv.batch, conv.out_channels)
    return from_channels_last(conv, lax.transpose(dw, (rank, *reversed(range(rank)), rank + 1)))


def _inputs(conv: Convolution, images: jax.Array, tiles: list[int]) -> jax.Array:
    """The transformed images, `[POINTS**rank, tiles of all examples, channels]`."""
    covered = [TILE * count + TAPS - 1 for count in tiles]
    padding = [
        (low, length - n - low)
        for (low, _), length, n in zip(conv.padding, covered, conv.in_space, strict=True)
    ]
    return _tile_transform(_INPUT, _pad(images, padding), tiles)


def _pad(x: jax.Array, space: list[tuple[int, int]]) -> jax.Array:
    config = [(0, 0, 0), *((low, high, 0) for low, high in space), (0, 0, 0)]
    return lax.optimization_barrier(lax.pad(x, jnp.zeros((), x.dtype), config))


def _tile_transform(matrix: np.ndarray, x: jax.Array, tiles: list[int]) -> jax.Array:
    """`matrix` times each tile of `x` `[batch, spatial axes, channels]`, along every axis.

    The result is `[POINTS**rank, tiles of all examples, channels]`, points of the last axis
    first. As sums of shifted slices: tiles gathered for a matrix product would be larger.
    """
    before, *lengths, channels = x.shape
    for axis, (length, count) in enumerate(zip(lengths, tiles, strict=True), start=1):
        x = x.reshape(before, length, math.prod(lengths[axis:]) * channels)
        parts = [
            lax.slice_in_dim(x, i, i + (count - 1) * TILE + 1, TILE, 1)
            for i in range(matrix.shape[1])
        ]
        x = _sums(matrix, parts)
        before *= POINTS * count
    points = POINTS ** len(tiles)
    return x.reshape(points, before // points, channels)


def _sums(matrix: np.ndarray, parts: list[jax.Array]) -> jax.Array:
    """One sum of the parts for each row of the matrix, stacked along a new first axis."""
    rows = []
    for row in matrix:
        terms = [part * np.asarray(c, part.dtype) for c, part in zip(row, parts, strict=True) if c]
        rows.append(functools.reduce(lax.add, terms))
    # An axis at a time: fused into the next one, each sum would be computed many times.
    return lax.optimization_barrier(jnp.stack(rows))


def _multiply(conv: Convolution, matrix: np.ndarray, x: jax.Array) -> jax.Array:
    """`matrix` along each of the `rank` first axes of `x`, as one product: `[rows**rank, rest]`.

    Entries that do not overlap need no gathering: one small product is as quick as sums
    written out, and compiles in no time.
    """
    every_axis = functools.reduce(np.kron, [matrix] * conv.rank)
    columns = every_axis.shape[1]
    flat = x.reshape(columns, x.size // columns)
    return lax.dot(np.asarray(every_axis, x.dtype), flat, precision=conv.precision)


def _products(
    conv: Convolution,
    a: jax.Array,
    b: jax.Array,
    summed: tuple[tuple[int], tuple[int]],
) -> jax.Array:
    """A matrix product for each point."""
    return lax.dot_general(
        a,
        b,
        (summed, ((0,), (0,))),
        precision=conv.precision,
        preferred_element_type=conv.out_dtype,
    )
