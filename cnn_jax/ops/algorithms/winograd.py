"""Winograd's minimal filtering for 3-tap kernels: F(4, 3) along each spatial axis.

Four outputs of a three-tap filter take six products instead of twelve (Lavin and Gray 2016,
"Fast Algorithms for Convolutional Neural Networks"): y = A^T ((G w) * (B^T d)), d six
neighbouring inputs. Along two axes that is a quarter of the products, each a matrix product
over channels. The weight gradient is the transpose of the same identity,
dw = G^T (sum over tiles of (A dy) * (B^T d)).

The transformed images are 2.25 times the images, and the transformed weights four times the
weights. So the points of the first axis are done one after another, and a block of examples at
a time: what a loop transforms stays in the cache, is small, and is not kept from the forward to
the backward pass, nor computed long before it is needed, as XLA does with what is not in a loop.
The transforms cost accuracy: in float32, with 64 to 256 channels, the largest error was up
to 6 times that of stock, 1e-5 of the outputs' spread instead of 3e-6 (the tests allow 10).
So a convolution that asks for `Precision.HIGHEST`, or one in 16 bits, is not computed so.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cnn_jax.ops.algorithms.blocks import (
    any_values,
    blocks_of_batch,
    keeps_exact,
    sum_of_blocks,
)
from cnn_jax.ops.algorithms.layout import channels_last, from_channels_last, kernel_first
from cnn_jax.ops.geometry import Convolution

BLOCK_BYTES = 16 << 20  # of a block of examples, transformed, and of its results
GRADIENT_BYTES = 4 << 20  # the same of a weight gradient, which keeps no results
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


def channels(conv: Convolution) -> int:
    """Of input or output, whichever has fewer; the batch plays the input of a weight gradient."""
    return min(conv.batch if is_weight_gradient(conv) else conv.in_channels, conv.out_channels)


def apply(conv: Convolution, lhs: jax.Array, rhs: jax.Array) -> jax.Array:
    """The convolution, or weight gradient, block of examples by block."""
    if is_weight_gradient(conv):
        size = max(1, GRADIENT_BYTES // max(_bytes_per_example(conv), 1))
        return sum_of_blocks(conv, lhs, rhs, size, _gradient)
    size = max(1, BLOCK_BYTES // max(_bytes_per_example(conv), 1))
    return blocks_of_batch(conv, lhs, rhs, size, _forward)


def _bytes_per_example(conv: Convolution) -> int:
    """Of what is transformed for one point of the first axis, and kept of all of them."""
    points = POINTS ** (conv.rank - 1)
    if is_weight_gradient(conv):
        entries = points * (conv.batch + conv.out_channels)
    else:
        kept = POINTS * TILE ** (conv.rank - 1)
        entries = points * (conv.in_channels + conv.out_channels) + kept * conv.out_channels
    return math.prod(_tiles(conv)) * entries * conv.dtype.itemsize


def _tiles(conv: Convolution) -> list[int]:
    """Along each spatial axis of the convolution whose images these are."""
    lengths = conv.kernel if is_weight_gradient(conv) else conv.out_space
    return [-(-length // TILE) for length in lengths]


def _forward(conv: Convolution, lhs: jax.Array, rhs: jax.Array) -> jax.Array:
    tiles, rank = _tiles(conv), conv.rank
    images, kernel = _padded(conv, lhs), kernel_first(conv, rhs)
    others = POINTS ** (rank - 1)
    every_axis = jnp.asarray(_kronecker(_KERNEL, rank), conv.dtype)

    def at(point: jax.Array) -> jax.Array:
        rows = lax.dynamic_slice_in_dim(every_axis, point * others, others)
        weights = _multiply(conv, rows, kernel).reshape(others, *kernel.shape[-2:])
        y = _products(conv, _transform(_INPUT, point, images, tiles), weights, ((2,), (1,)))
        return _multiply(conv, _kronecker(_OUTPUT, rank - 1), y)

    y = _multiply(conv, _OUTPUT, _for_each_point(at, lhs))
    # [outputs of a tile, batch, tiles, channels] to [batch, space, channels].
    y = y.reshape(*(TILE,) * rank, conv.batch, *tiles, conv.out_channels)
    order = [rank, *(a for i in range(rank) for a in (rank + 1 + i, i)), 2 * rank + 1]
    covered = [TILE * count for count in tiles]
    y = lax.transpose(y, order).reshape(conv.batch, *covered, conv.out_channels)
    y = lax.slice(y, (0,) * y.ndim, (conv.batch, *conv.out_space, conv.out_channels))
    return from_channels_last(conv, y)


def _gradient(conv: Convolution, lhs: jax.Array, rhs: jax.Array) -> jax.Array:
    """The weight gradient: the channels play the batch, the examples the channels."""
    tiles, rank = _tiles(conv), conv.rank
    images = _padded(conv, lhs)
    gradient = channels_last((conv.rhs_spec[1], conv.rhs_spec[0], *conv.rhs_spec[2:]), rhs)
    gradient = _pad(gradient, [(0, TILE * t - n) for t, n in zip(tiles, conv.kernel, strict=True)])

    def at(point: jax.Array) -> jax.Array:
        x, dy = (
            _transform(matrix, point, array, tiles)
            for matrix, array in ((_INPUT, images), (_OUTPUT.T, gradient))
        )
        return _multiply(
            conv, _kronecker(_KERNEL.T, rank - 1), _products(conv, x, dy, ((1,), (1,)))
        )

    dw = _multiply(conv, _KERNEL.T, _for_each_point(at, rhs))
    dw = dw.reshape(*(TAPS,) * rank, conv.batch, conv.out_channels)
    return from_channels_last(conv, lax.transpose(dw, (rank, *range(rank), rank + 1)))


def _for_each_point(at: Callable[[jax.Array], jax.Array], operand: jax.Array) -> jax.Array:
    """`at` each point of the first axis, stacked; `operand` is anything that exists by then."""
    one = jax.eval_shape(at, jax.ShapeDtypeStruct((), jnp.int32))

    def put(point: jax.Array, out: jax.Array) -> jax.Array:
        return lax.dynamic_update_index_in_dim(out, at(point), point, 0)

    if 0 in (*one.shape, *operand.shape):
        return jnp.zeros((POINTS, *one.shape), one.dtype)
    return lax.fori_loop(0, POINTS, put, any_values((POINTS, *one.shape), one.dtype, operand))


def _padded(conv: Convolution, lhs: jax.Array) -> jax.Array:
    """The images `[examples, spatial axes, channels]`, as far as their tiles reach."""
    batch, channels, *space = conv.lhs_spec
    if is_weight_gradient(conv):
        batch, channels = channels, batch
    padding = [
        (low, TILE * tiles + TAPS - 1 - length - low)
        for (low, _), tiles, length in zip(conv.padding, _tiles(conv), conv.in_space, strict=True)
    ]
    return _pad(channels_last((batch, channels, *space), lhs), padding)


def _pad(x: jax.Array, space: list[tuple[int, int]]) -> jax.Array:
    config = [(0, 0, 0), *((low, high, 0) for low, high in space), (0, 0, 0)]
    return lax.pad(x, jnp.zeros((), x.dtype), config)


def _transform(matrix: np.ndarray, point: jax.Array, x: jax.Array, tiles: list[int]) -> jax.Array:
    """`matrix` times each tile of `x` `[examples, spatial axes, channels]`, along every axis.

    Along the first axis only its row `point`; the result is `[points of the other axes, tiles of
    all examples, channels]`. As sums of shifted slices: tiles gathered for a matrix product
    would be larger.
    """
    examples, *lengths, channels = x.shape
    row = lax.dynamic_index_in_dim(jnp.asarray(matrix, x.dtype), point, keepdims=False)
    x = functools.reduce(
        lax.add, (row[i] * part for i, part in enumerate(_shifted(x, 1, tiles[0], len(row))))
    )
    lengths[0], points = tiles[0], 1
    for axis in reversed(range(1, len(tiles))):
        before = points * examples * math.prod(lengths[:axis])
        x = x.reshape(before, lengths[axis], math.prod(lengths[axis + 1 :]) * channels)
        x = _sums(matrix, _shifted(x, 1, tiles[axis], matrix.shape[1]))
        lengths[axis] = tiles[axis]
        points *= POINTS
    return x.reshape(points, examples * math.prod(tiles), channels)


def _shifted(x: jax.Array, axis: int, tiles: int, length: int) -> list[jax.Array]:
    """The first entries of all tiles along an axis, the second ones, up to `length`."""
    last = (tiles - 1) * TILE + 1
    return [lax.slice_in_dim(x, i, i + last, TILE, axis) for i in range(length)]


def _sums(matrix: np.ndarray, parts: list[jax.Array]) -> jax.Array:
    """One sum of the parts for each row of the matrix, stacked along a new first axis."""
    rows = []
    for row in matrix:
        terms = [part * np.asarray(c, part.dtype) for c, part in zip(row, parts, strict=True) if c]
        rows.append(functools.reduce(lax.add, terms))
    return jnp.stack(rows)


def _kronecker(matrix: np.ndarray, rank: int) -> np.ndarray:
    """`matrix` along each of `rank` axes, as one matrix; for none of them, 1."""
    return functools.reduce(np.kron, [matrix] * rank, np.ones((1, 1)))


def _multiply(conv: Convolution, matrix: jax.Array | np.ndarray, x: jax.Array) -> jax.Array:
    """`matrix` times the first axes of `x`, as many as it has columns: `[rows, rest]`.

    Entries that do not overlap need no gathering: one small product is as quick as sums
    written out, and compiles in no time.
    """
    columns = matrix.shape[1]
    flat = x.reshape(columns, x.size // columns)
    return lax.dot(jnp.asarray(matrix, x.dtype), flat, precision=conv.precision)


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
