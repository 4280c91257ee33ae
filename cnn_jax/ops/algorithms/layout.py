"""Bringing operands into the layout an algorithm is written in, and the result back."""

from __future__ import annotations

from collections.abc import Sequence

import jax
from jax import lax

from cnn_jax.ops.geometry import Convolution


def place(spec: Sequence[int], labels: Sequence[str]) -> list[str]:
    """The labels, in the order in which `spec` lays out their axes."""
    return [label for _, label in sorted(zip(spec, labels, strict=True))]


def channels_last(spec: Sequence[int], x: jax.Array) -> jax.Array:
    """Operand or result laid out by `spec`, as (first role, spatial axes, second role)."""
    return lax.transpose(x, (spec[0], *spec[2:], spec[1]))


def from_channels_last(conv: Convolution, out: jax.Array) -> jax.Array:
    """A result (batch, spatial axes, channels), laid out as the convolution wants it."""
    order = [0] * out.ndim
    for source, target in enumerate((conv.out_spec[0], *conv.out_spec[2:], conv.out_spec[1])):
        order[target] = source
    return lax.transpose(out, order)


def kernel_first(conv: Convolution, rhs: jax.Array) -> jax.Array:
    """The kernel as (spatial axes, input channels, output channels)."""
    return lax.transpose(rhs, (*conv.rhs_spec[2:], conv.rhs_spec[1], conv.rhs_spec[0]))
