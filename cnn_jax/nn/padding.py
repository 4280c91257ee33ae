"""Padding as Flax spells it, brought to what `cnn_jax.ops` takes."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from cnn_jax.errors import ModelError
from cnn_jax.ops import Padding

PaddingLike = str | int | Sequence[int | tuple[int, int]]


def same_for_all_axes(value: int | Sequence[int] | None, rank: int) -> tuple[int, ...]:
    """`value` for each of `rank` spatial axes; None means 1, as in Flax.

    Raises:
      ModelError: `value` has another number of entries.
    """
    if value is None:
        value = 1
    if isinstance(value, int):
        return (value,) * rank
    if len(value) != rank:
        raise ModelError(f"{tuple(value)} must have one entry for each of {rank} spatial axes")
    return tuple(value)


def dilated_size(kernel_size: Sequence[int], dilation: Sequence[int]) -> tuple[int, ...]:
    """How far a kernel reaches along each axis once its taps are spread."""
    return tuple((size - 1) * step + 1 for size, step in zip(kernel_size, dilation, strict=True))


def as_pairs(padding: PaddingLike, rank: int, names: Sequence[str]) -> Padding:
    """`padding` as one of the `names` in capitals, or as (low, high) pairs.

    Raises:
      ModelError: it is neither.
    """
    if isinstance(padding, str) and padding.upper() in names:
        return padding.upper()
    if isinstance(padding, int):
        return [(padding, padding)] * rank
    if not isinstance(padding, str) and len(padding) == rank:
        pairs = [(entry, entry) if isinstance(entry, int) else tuple(entry) for entry in padding]
        if all(len(pair) == 2 for pair in pairs):
            return [(low, high) for low, high in pairs]
    raise ModelError(
        f"padding {padding!r} must be one of {', '.join(names)}, a number, or a number or "
        f"(low, high) pair for each of {rank} spatial axes"
    )


def pad_or_pass(
    x: jax.Array, padding: PaddingLike, kernel_size: Sequence[int], dilation: Sequence[int]
) -> tuple[jax.Array, Padding]:
    """Pad `x` `[N, spatial axes, C]` where a convolution cannot: CIRCULAR, REFLECT, CAUSAL.

    Returns:
      The images, and the padding that is left for the convolution to do.

    Raises:
      ModelError: the padding does not exist, or CAUSAL with more than one spatial axis.
    """
    rank = len(kernel_size)
    names = ("SAME", "VALID", "CIRCULAR", "REFLECT", "CAUSAL")
    padding = as_pairs(padding, rank, names)
    if padding not in ("CIRCULAR", "REFLECT", "CAUSAL"):
        return x, padding
    reach = dilated_size(kernel_size, dilation)
    if padding == "CAUSAL":
        if rank != 1:
            raise ModelError(f"CAUSAL padding needs one spatial axis, not {rank}")
        return jnp.pad(x, [(0, 0), (reach[0] - 1, 0), (0, 0)]), "VALID"
    widths = [(0, 0), *(((size - 1) // 2, size // 2) for size in reach), (0, 0)]
    mode = "wrap" if padding == "CIRCULAR" else "reflect"
    return jnp.pad(x, widths, mode=mode), "VALID"


def transposed_pairs(
    padding: str, reach: Sequence[int], strides: Sequence[int]
) -> list[tuple[int, int]]:
    """(low, high) of the convolution that undoes the shape of one with `SAME` or `VALID`.

    As `jax.lax.conv_transpose`: SAME gives stride * size, VALID gives
    stride * size + max(reach - stride, 0).
    """
    pairs = []
    for size, stride in zip(reach, strides, strict=True):
        if padding == "VALID":
            total = size + stride - 2 + max(size - stride, 0)
            low = size - 1
        else:
            total = size + stride - 2
            low = size - 1 if stride > size - 1 else (total + 1) // 2
        pairs.append((low, total - low))
    return pairs
