"""Which algorithm a dense convolution gets on a CPU: by arithmetic on its shapes.

Each condition says when the work saved exceeds what the algorithm adds. The limits were
measured on two cores (1 MiB of second-level cache each) in float32 against `stock`, with
rivals interleaved; where nothing was measured, it is `stock`. `patches` are left to
`cnn-jax bench tune`: with a stride they took 0.7 of stock's time on jax 0.10 and 1.4 on 0.12.
"""

from __future__ import annotations

import math

import jax.numpy as jnp

from cnn_jax.ops.algorithms import banded, blocks, phases, pointwise, winograd
from cnn_jax.ops.geometry import Convolution

# Fewer channels fill neither a vector register nor a matrix product.
FEW_CHANNELS = 32
# Rows of images that a banded matrix is multiplied with, below which building it costs more.
BANDED_ROWS = 128


def dense(conv: Convolution) -> str:
    """Name of the algorithm for a convolution of one group; `stock` where none is faster."""
    if conv.dtype != jnp.float32 or conv.out_dtype != jnp.float32:
        return "stock"
    if conv.feature_groups * conv.batch_groups != 1 or 0 in conv.out_shape:
        return "stock"
    if any(step > 1 for step in conv.lhs_dilation):
        return "phases" if _phases_pay(conv) else "stock"
    if pointwise.fits(conv):
        return "pointwise" if _pointwise_pays(conv) else "stock"
    if winograd.fits(conv) and _winograd_pays(conv):
        return "winograd"
    if _banded_pays(conv):
        return "banded"
    return "blocks" if conv.is_weight_gradient and _blocks_pay(conv) else "stock"


def _pointwise_pays(conv: Convolution) -> bool:
    """Always for a weight gradient (0.2 to 0.8 of stock), else with channels enough.

    From 8 to 16 channels the product took 1.4 to 3 times as long as stock, within 0.2 ms.
    """
    wide = min(conv.in_channels, conv.out_channels) >= FEW_CHANNELS
    return wide or conv.is_weight_gradient


def _phases_pay(conv: Convolution) -> bool:
    """Stock multiplies with zeros, but quickly; what is saved must pay the interleaving.

    It took 0.5 to 0.85 of stock's time with 64 to 128 input channels. With 256, which stock
    multiplies at its best, 0.9 to 1.2; where a phase has but one kernel entry (2x2), 0.9 to 1.
    """
    wide = conv.out_channels >= FEW_CHANNELS <= conv.in_channels <= 4 * FEW_CHANNELS
    reaches = all(k > d for k, d in zip(conv.kernel, conv.lhs_dilation, strict=True))
    large = _bytes(conv.out_shape) >= 2 * blocks.BLOCK_BYTES
    return phases.fits(conv) and wide and reaches and large and math.prod(conv.kernel) <= 9


def _winograd_pays(conv: Convolution) -> bool:
    """A quarter of the products, against transforms that each channel pays once.

    It took 0.4 to 0.9 of stock's time, 64 to 512 channels. The rows of each product, tiles of
    all examples, must outweigh the transform of the kernel, 36 entries for each 9: 32 of them
    did. With 16 it took 0.7 to 1.4; forward with 128 channels, which stock multiplies at its
    best, 1.1 to 1.25 with 32 rows, 1.0 with 64, 0.8 to 1.0 with 96. Tiles that reach past the edge
    are lost work.
    """
    gradient = winograd.is_weight_gradient(conv)
    space = conv.kernel if gradient else conv.out_space
    examples = conv.in_channels if gradient else conv.batch
    tiles = math.prod(-(-length // winograd.TILE) for length in space)
    saved = (winograd.TAPS / winograd.POINTS) ** conv.rank * math.prod(space) / max(tiles, 1)
    channels = winograd.channels(conv)
    rows = 96 if not gradient and 128 <= channels < 256 else 32
    wide = channels >= 2 * FEW_CHANNELS
    return conv.rank == 2 and wide and saved >= 2.5 and examples * tiles >= rows


def _blocks_pay(conv: Convolution) -> bool:
    """The sum is carried through every block, so it must be smaller than a block."""
    operands = _bytes(conv.lhs_shape) + _bytes(conv.rhs_shape)
    small_sum = _bytes(conv.out_shape) <= blocks.BLOCK_BYTES
    wide = min(conv.batch, conv.out_channels) >= FEW_CHANNELS
    return blocks.fits(conv) and small_sum and wide and operands >= 2 * blocks.BLOCK_BYTES


def _banded_pays(conv: Convolution) -> bool:
    """Stock fills no vector register with so few channels; multiplying zeros is quicker.

    It took 0.13 to 0.9 of stock's time, images 8 to 32 wide, 3x3 and 5x5; 3 to 16 channels took
    1.2 of it, and 1.8 for the weights, where freed memory is kept. A single image does not
    pay for the matrix (1.5 to 2.0 with 32 rows, 0.8 with 288). With more channels the zeros cost
    more than they save (0.9 to 4.5), with a stride earlier. Stock's weight gradient is
    slow only where its operands leave the cache: 0.45 to 1.0 with 128 images of 28 to 32 pixels,
    1.2 to 3 below that.
    """
    inputs, outputs = banded.channels(conv)
    if not banded.fits(conv) or banded.inflation(conv) > 11:
        return False
    if any(step > 1 for step in (*conv.lhs_dilation, *conv.rhs_dilation)):
        return False
    if conv.is_weight_gradient:
        large = conv.in_channels * math.prod(conv.kernel) >= 100_000
        return large and inputs <= 4 and inputs * outputs <= 24
    if conv.batch * math.prod(conv.out_space[:-1]) < BANDED_ROWS:
        return False
    few = max(inputs, outputs) <= 16 and inputs * outputs <= 24
    strided = any(stride > 1 for stride in conv.strides)
    return few and conv.multiply_adds >= 100_000 and not (strided and inputs > 4)


def _bytes(shape: tuple[int, ...]) -> int:
    return 4 * math.prod(shape)
