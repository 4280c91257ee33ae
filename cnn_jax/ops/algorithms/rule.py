"""The algorithm that arithmetic advises on a CPU, where nothing was measured."""

from __future__ import annotations

from cnn_jax.ops.algorithms import onednn, winograd
from cnn_jax.ops.algorithms.dense_rule import dense
from cnn_jax.ops.algorithms.grouped_rule import grouped
from cnn_jax.ops.geometry import Convolution

# Channels from which Winograd's products beat oneDNN's kernels: 0.5 to 1.0 of their time. With 64
# it took 0.9 to 1.1, is less exact and compiles longer.
FEWER_PRODUCTS_PAY = 128

REASONS = {
    "banded": "few channels: whole rows times a matrix with the kernel on a band",
    "blocks": "a few examples at a time stay in the cache",
    "each_group": "XLA has a fast kernel for each group, none for all of them",
    "onednn": "oneDNN has a compiled kernel for it",
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
        products, of which there are fewer, where there are many channels.
    """
    name = dense(conv) if conv.feature_groups * conv.batch_groups == 1 else grouped(conv)
    few_products = name == "winograd" and winograd.channels(conv) >= FEWER_PRODUCTS_PAY
    if native and not few_products and onednn.fits(conv):
        name = "onednn"
    return name, REASONS[name]
