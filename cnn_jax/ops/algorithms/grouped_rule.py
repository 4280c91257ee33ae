"""Which algorithm suits a convolution of several groups on a CPU.

Measured in float32 on two cores of an AMD EPYC with AVX-512, jax 0.10. XLA's own grouped
convolution is a plain loop: 0.3 to 2 billion multiply-adds a second forwards and 30 million
for a weight gradient of wider groups. A sum of shifted images does 4 to 20 billion, for it
fills a vector register with channels; a convolution for each group is a matrix product whose
narrow side is the group, and overtakes the sum between 4 and 8 channels: at 8 it does 16
billion and the sum 4, since its 72 terms no longer stay in registers.
"""

from __future__ import annotations

import math

from cnn_jax.ops.algorithms import shifted, tap_sums
from cnn_jax.ops.geometry import Convolution

# Channels of a group up to which a sum of shifted images beats a matrix product.
NARROW = 4

# The multiply-adds that XLA's loop does while an algorithm only begins. Padding and summing
# once takes 10 microseconds; each tap of a weight gradient 5; each group 30, in which the loop
# does the more, the wider the group is, and a thousand of a weight gradient.
SHIFTED_WORTH = 10_000
WORTH_PER_TAP = 4_000
WORTH_PER_GROUP_AND_CHANNEL = 25_000
WORTH_PER_GROUP_OF_WEIGHTS = 2_000


def grouped(conv: Convolution) -> str:
    """The name of an algorithm for a convolution of several groups, `stock` if none is better."""
    groups = conv.feature_groups * conv.batch_groups
    width = conv.in_channels // conv.feature_groups
    if groups == 1:
        return "stock"
    if shifted.fits(conv) and width <= NARROW:
        algorithm, worth = "shifted", SHIFTED_WORTH
    elif tap_sums.fits(conv):
        algorithm, worth = "tap_sums", math.prod(conv.out_space) * WORTH_PER_TAP
    elif conv.batch_groups > 1:
        algorithm, worth = "each_group", groups * WORTH_PER_GROUP_OF_WEIGHTS
    else:
        algorithm, worth = "each_group", groups * width * WORTH_PER_GROUP_AND_CHANNEL
    return algorithm if conv.multiply_adds >= worth else "stock"
