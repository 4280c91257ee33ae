"""Which algorithm suits a convolution of several groups on a CPU.

Measured in float32 on two cores of an AMD EPYC with AVX-512, jax 0.10. XLA's own grouped
convolution is a plain loop: 0.3 to 2 billion multiply-adds a second forwards and 30 million
for a weight gradient of wider groups. A sum of shifted images does 4 to 20 billion, for it
fills a vector register with channels; a convolution for each group is a matrix product whose
narrow side is the group, and overtakes the sum between 4 and 8 channels: at 8 it does 16
billion and the sum 4, since its 72 terms no longer stay in registers. Where a group has many
features, XLA's loop fills registers with them, and the sum of many terms is the slower one. In
three dimensions few groups, one by one, are no faster than XLA's loop (0.9 to 4 times as long),
except where images are spread by zeros (0.01 to 1.0).
"""

from __future__ import annotations

import math

from cnn_jax.ops.algorithms import shifted, tap_sums
from cnn_jax.ops.geometry import Convolution

# Channels of a group up to which a sum of shifted images beats a matrix product.
NARROW = 4

# Features of a group from which XLA's own loop beats a sum of as many terms, in 1-D and 2-D.
MANY_FEATURES, MANY_TERMS = 16, 20

# Groups up to which three dimensions are left to XLA's loop; more were not measured.
FEW_GROUPS = 4

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
    features = conv.out_channels // groups
    spread = any(step > 1 for step in conv.lhs_dilation)  # XLA's loop multiplies the zeros
    if groups == 1:
        return "stock"
    if shifted.fits(conv) and width <= NARROW:
        terms = width * math.prod(conv.kernel)
        many = features >= MANY_FEATURES and terms >= MANY_TERMS
        if many and conv.rank <= 2 and not spread:
            return "stock"
        algorithm, worth = "shifted", SHIFTED_WORTH
    elif tap_sums.fits(conv):
        algorithm, worth = "tap_sums", math.prod(conv.out_space) * WORTH_PER_TAP
    elif conv.rank > 2 and groups <= FEW_GROUPS and not spread:
        return "stock"
    elif conv.batch_groups > 1:
        algorithm, worth = "each_group", groups * WORTH_PER_GROUP_OF_WEIGHTS
    else:
        narrow = 2 if features < MANY_FEATURES and not spread else 1
        algorithm, worth = "each_group", groups * width * narrow * WORTH_PER_GROUP_AND_CHANNEL
    return algorithm if conv.multiply_adds >= worth else "stock"
