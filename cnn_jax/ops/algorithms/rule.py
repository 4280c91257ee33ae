"""The algorithm that arithmetic advises on a CPU, where nothing was measured."""

from __future__ import annotations

from cnn_jax.ops.algorithms import onednn
from cnn_jax.ops.algorithms.dense_rule import dense
from cnn_jax.ops.algorithms.grouped_rule import grouped
from cnn_jax.ops.geometry import Convolution

REASONS = {
    "blocks": "a few examples at a time stay in the cache",
    "each_group": "XLA has a fast kernel for each group, none for all of them",
    "onednn": "oneDNN has a compiled kernel for it",
    "patches": "one input channel: a small matrix of windows, and one product",
    "phases": "the images are spread by zeros, which need not be multiplied",
    "pointwise": "it is one matrix product",
    "shifted": "each channel for itself: one pass of multiply-adds over shifted images",
    "stock": "no algorithm is known to be faster",
    "tap_sums": "each channel for itself: sums of products, block by block from the cache",
    "winograd": "a quarter of the products",
}


def by_rule(conv: Convolution, *, native: bool = False) -> tuple[str, str]:
    """Name of an algorithm and the reason for it.

    Args:
      conv: the convolution.
      native: whether oneDNN's kernels may be used. They are faster than all but Winograd's
        products, of which there are fewer.
    """
    name = dense(conv) if conv.feature_groups * conv.batch_groups == 1 else grouped(conv)
    if native and name != "winograd" and onednn.fits(conv):
        name = "onednn"
    return name, REASONS[name]
