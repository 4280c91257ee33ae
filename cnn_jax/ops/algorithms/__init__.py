"""The algorithms of convolution, each alone in its module.

An algorithm has two functions: `fits(conv)`, whether it can compute a convolution at all,
and `apply(conv, lhs, rhs)`, which computes it by operations of jax.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

import jax

from cnn_jax.ops.algorithms import (
    banded,
    blocks,
    each_group,
    onednn,
    patches,
    phases,
    pointwise,
    shifted,
    stock,
    tap_sums,
    taps,
    winograd,
)
from cnn_jax.ops.geometry import Convolution


class Algorithm(Protocol):
    """What a module of this package offers."""

    def fits(self, conv: Convolution) -> bool:
        """Whether it can compute this convolution; not whether it is fast."""

    def apply(self, conv: Convolution, lhs: jax.Array, rhs: jax.Array) -> jax.Array:
        """The result, laid out as `conv.out_spec`, of dtype `conv.out_dtype`."""


ALGORITHMS: Mapping[str, Algorithm] = MappingProxyType(
    {
        "stock": stock,
        "pointwise": pointwise,
        "winograd": winograd,
        "blocks": blocks,
        "banded": banded,
        "patches": patches,
        "phases": phases,
        "taps": taps,
        "shifted": shifted,
        "tap_sums": tap_sums,
        "each_group": each_group,
        "onednn": onednn,
    }
)
