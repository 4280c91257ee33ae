"""A convolution of few channels as one product with a banded matrix.

Along the last spatial axis a convolution is a product with a Toeplitz matrix: a whole row of
the images, all its channels, times a matrix that holds the kernel on a band of diagonals and
zeros elsewhere, is a whole row of the result. The rows that a kernel reaches along the other
axes stand side by side. The zeros are multiplied, too, images' width / kernel's width times as
much work, but with so few channels nothing else fills the vector registers: from 3 to 6 of them
LeNet's first layer takes 0.55 of stock's time and its input gradient 0.42
(`cnn-jax bench zoo --filter "5x5 3-6 @32x32 n32"`).

The weight gradient is the transpose: the product of both, whose diagonals are summed.

An infinite number, or none, in the images makes NaN of whole rows: it meets the zeros.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cnn_jax.ops.algorithms.blocks import keeps_exact
from cnn_jax.ops.algorithms.layout import channels_last, from_channels_last, kernel_first
from cnn_jax.ops.geometry import Convolution, window

MOST_ENTRIES = 1 << 22  # of the banded matrix


class _Windows(NamedTuple):
    """The forward convolution's windows, each entry one number for each spatial axis.

    Of a weight gradient those of its own kernel and result have exchanged roles.
    """

    taps: tuple[int, ...]  # positions of the kernel, and the distance between them
    tap_steps: tuple[int, ...]
    outputs: tuple[int, ...]  # positions of the output, and the distance between windows
    steps: tuple[int, ...]


def _windows(conv: Convolution) -> _Windows:
    kernel, result = (conv.kernel, conv.rhs_dilation), (conv.out_space, conv.strides)
    return _Windows(*result, *kernel) if conv.is_weight_gradient else _Windows(*kernel, *result)


def inflation(conv: Convolution) -> float:
    """How many times the products of the convolution itself are multiplied."""
    return conv.in_space[-1] / _windows(conv).taps[-1]


def channels(conv: Convolution) -> tuple[int, int]:
    """Channels of input and output, of a weight gradient those of the forward convolution."""
    return conv.batch if conv.is_weight_gradient else conv.in_channels, conv.out_channels


def fits(conv: Convolution) -> bool:
    """One group, a matrix that is not large, and sums that are as exact in parts as at once."""
    if conv.rank == 0 or 0 in (*conv.lhs_shape, *conv.rhs_shape, *conv.out_shape):
        return False
    windows = _windows(conv)
    rows = math.prod(windows.taps[:-1]) * conv.in_space[-1]
    entries = rows * windows.outputs[-1] * math.prod(channels(conv))
    one_group = conv.feature_groups == conv.batch_groups == 1
    return one_group and keeps_exact(conv) and entries <= MOST_ENTRIES


def apply(conv: Convolution, lhs: jax.Array, rhs: jax.Array) -> jax.Array:
    """The convolution, laid out as `conv.out_spec`."""
    return _gradient(conv, lhs, rhs) if conv.is_weight_gradient else _forward(conv, lhs, rhs)


def _forward(conv: Convolution, lhs: jax.Array, rhs: jax.Array) -> jax.Array:
    rows = _rows(conv, lhs)
    taps, outputs = conv.kernel[-1], conv.out_space[-1]
    kernel = kernel_first(conv, rhs).reshape(-1, taps, conv.in_channels, conv.out_channels)
    matrix = jnp.einsum("rkif,kwo->rwiof", kernel, _band(conv), precision=conv.precision)
    result = lax.dot_general(
        rows,
        matrix.reshape(-1, outputs * conv.out_channels),
        (((rows.ndim - 1,), (0,)), ((), ())),
        precision=conv.precision,
    )
    shape = (conv.batch, *conv.out_space, conv.out_channels)
    return from_channels_last(conv, result.reshape(shape))


def _gradient(conv: Convolution, lhs: jax.Array, rhs: jax.Array) -> jax.Array:
    """The channels play the batch, the examples the channels."""
    rows = _rows(conv, lhs)
    gradient = channels_last((conv.rhs_spec[1], conv.rhs_spec[0], *conv.rhs_spec[2:]), rhs)
    gradient = gradient.reshape(*gradient.shape[:-2], -1)
    summed = tuple(range(rows.ndim - 1))
    matrix = lax.dot_general(rows, gradient, ((summed, summed), ((), ())), precision=conv.precision)
    width, outputs = conv.in_space[-1], conv.kernel[-1]
    matrix = matrix.reshape(-1, width, conv.batch, outputs, conv.out_channels)
    kernel = jnp.einsum("rwiof,kwo->rkif", matrix, _band(conv), precision=conv.precision)
    kernel = kernel.reshape(*conv.out_space, conv.batch, conv.out_channels)
    axes = (conv.rank, *range(conv.rank), conv.rank + 1)
    return from_channels_last(conv, lax.transpose(kernel, axes))


def _rows(conv: Convolution, lhs: jax.Array) -> jax.Array:
    """`[examples, outputs of all axes but the last, row]`: all that the taps of those axes meet.

    A row is `[taps, width, channels]`. Padding and dilation are written out but along the last
    axis, where the band knows them.
    """
    config = [(0, 0, 0)] * lhs.ndim
    for axis, (low, high), dilation in zip(
        conv.lhs_spec[2:-1], conv.padding, conv.lhs_dilation, strict=False
    ):
        config[axis] = (low, high, dilation - 1)
    padded = lax.pad(lhs, jnp.zeros((), lhs.dtype), config)
    taps, tap_steps, outputs, steps = _windows(conv)
    width = padded.shape[conv.lhs_spec[-1]]
    batch, axis, *space = conv.lhs_spec
    if conv.is_weight_gradient:
        batch, axis = axis, batch
    parts = []
    for position in itertools.product(*map(range, taps[:-1])):
        starts = [tap * step for tap, step in zip(position, tap_steps, strict=False)]
        part = window(conv, padded, [*starts, 0], [*outputs[:-1], width], [*steps[:-1], 1])
        part = channels_last((batch, axis, *space), part)
        parts.append(part.reshape(*part.shape[:-2], -1))
    return lax.concatenate(parts, parts[0].ndim - 1)


def _band(conv: Convolution) -> np.ndarray:
    """`[taps, width, outputs]` along the last axis: 1 where a tap of an output meets a pixel."""
    taps, tap_steps, outputs, steps = (entries[-1] for entries in _windows(conv))
    (low, _), dilation = conv.padding[-1], conv.lhs_dilation[-1]
    met = np.arange(outputs) * steps + np.arange(taps)[:, None] * tap_steps - low
    pixels = np.arange(conv.in_space[-1])[:, None] * dilation
    return (met[:, None] == pixels).astype(conv.dtype)
