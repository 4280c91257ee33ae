"""XLA's own convolution, handed over in the one layout it is fast in.

On a CPU, XLA brings a convolution into the layout of its fast kernel only outside loops: a
weight gradient inside `lax.scan`, whose batch is the channels, ran 30 to 50 times slower
there (jax 0.10 and 0.12). Written out as a transposition before the convolution it is as
fast inside as outside.
"""

from __future__ import annotations

import jax
from jax import lax

from cnn_jax.ops.geometry import Convolution


def fits(conv: Convolution) -> bool:
    """Every convolution."""
    return True


def apply(conv: Convolution, lhs: jax.Array, rhs: jax.Array) -> jax.Array:
    """The convolution by `jax.lax`, batch first and channels last."""
    space = tuple(range(1, conv.rank + 1))
    last = conv.rank + 1
    lhs_spec, rhs_spec, out_spec = conv.lhs_spec, conv.rhs_spec, conv.out_spec
    lhs = lax.transpose(lhs, (lhs_spec[0], *lhs_spec[2:], lhs_spec[1]))
    rhs = lax.transpose(rhs, (*rhs_spec[2:], rhs_spec[1], rhs_spec[0]))
    numbers = lax.ConvDimensionNumbers(
        (0, last, *space), (last, last - 1, *(axis - 1 for axis in space)), (0, last, *space)
    )
    out = lax.conv_general_dilated_p.bind(lhs, rhs, **{**conv.params, "dimension_numbers": numbers})
    order = [0] * out.ndim
    for source, target in zip((0, last, *space), out_spec, strict=True):
        order[target] = source
    return lax.transpose(out, order)
