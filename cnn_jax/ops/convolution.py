"""Convolution and its convenience forms, with the signatures of `jax.lax`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
from jax import lax

from cnn_jax.errors import ModelError
from cnn_jax.ops.choice import wanted_here
from cnn_jax.ops.primitive import rebind

Padding = str | Sequence[tuple[int, int]]


def conv_general_dilated(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: Padding,
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: lax.PrecisionLike = None,
    preferred_element_type: Any = None,
    out_sharding: Any = None,
) -> jax.Array:
    """Convolution with strides, dilations and groups, as `jax.lax.conv_general_dilated`.

    out[n, o, y] = sum over c, k of lhs[n, c, strides * y + rhs_dilation * k - low]
    rhs[o, c, k], where lhs is first spread by `lhs_dilation` and padded by zeros. The same
    to rounding; what differs is the algorithm, see `explain` and `use_algorithm`. Derivatives
    of every kind and order, `jax.vmap`, `jax.jit`, loops and shardings work as there. What
    knows the stock primitive by name does not know ours: policies of `jax.checkpoint` such as
    `dots_saveable`, the checks for NaN of `jax.experimental.checkify`, which then see none,
    and `jax.experimental.jet`, which raises. A NaN or an infinity of the images may make more
    outputs NaN than see it: Winograd's products a tile of them, a banded matrix a row.

    Args:
      lhs: images, laid out as `dimension_numbers` says.
      rhs: kernel, of the same dtype.
      window_strides: one stride for each spatial axis.
      padding: `SAME`, `SAME_LOWER`, `VALID` or a (low, high) pair for each spatial axis.
      lhs_dilation: spread of the images, by default 1 (the stride of a transposed convolution).
      rhs_dilation: spread of the kernel, by default 1 (atrous convolution).
      dimension_numbers: layout of images, kernel and output; by default NCHW and OIHW.
      feature_group_count: groups of input channels that do not mix.
      batch_group_count: groups of examples that do not mix.
      precision: `jax.lax.Precision` of the products.
      preferred_element_type: dtype of the sums and of the output.
      out_sharding: of the output, under explicit sharding.

    Returns:
      The output, laid out as `dimension_numbers` says.

    Raises:
      TypeError, ValueError: what `jax.lax` raises; the shapes are named.
      ModelError: a dilation has not one entry for each spatial axis.
    """
    for name, dilation in (("lhs_dilation", lhs_dilation), ("rhs_dilation", rhs_dilation)):
        if dilation is not None and len(dilation) != len(window_strides):
            raise ModelError(
                f"{name} {tuple(dilation)} must have one entry for each of "
                f"{len(window_strides)} spatial axes"
            )
    return rebind(
        lax.conv_general_dilated,
        lhs,
        rhs,
        wanted=wanted_here(),
        window_strides=window_strides,
        padding=padding,
        lhs_dilation=lhs_dilation,
        rhs_dilation=rhs_dilation,
        dimension_numbers=dimension_numbers,
        feature_group_count=feature_group_count,
        batch_group_count=batch_group_count,
        precision=precision,
        preferred_element_type=preferred_element_type,
        out_sharding=out_sharding,
    )


def conv_transpose(
    lhs: jax.Array,
    rhs: jax.Array,
    strides: Sequence[int],
    padding: Padding,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    transpose_kernel: bool = False,
    precision: lax.PrecisionLike = None,
    preferred_element_type: Any = None,
) -> jax.Array:
    """Transposed convolution, with arguments and results of `jax.lax.conv_transpose`.

    The gradient of a convolution with respect to its images, as a layer that enlarges them.
    """
    return rebind(
        lax.conv_transpose,
        lhs,
        rhs,
        wanted=wanted_here(),
        strides=strides,
        padding=padding,
        rhs_dilation=rhs_dilation,
        dimension_numbers=dimension_numbers,
        transpose_kernel=transpose_kernel,
        precision=precision,
        preferred_element_type=preferred_element_type,
    )


def conv_general_dilated_local(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: Padding,
    filter_shape: Sequence[int],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    precision: lax.PrecisionLike = None,
) -> jax.Array:
    """A kernel of its own at each position, as `jax.lax.conv_general_dilated_local`.

    Args:
      rhs: `[*output positions, C * kernel positions, O]` for NHWC images and HWIO kernels.
      filter_shape: length of the kernels along each spatial axis.
    """
    return rebind(
        lax.conv_general_dilated_local,
        lhs,
        rhs,
        wanted=wanted_here(),
        window_strides=window_strides,
        padding=padding,
        filter_shape=filter_shape,
        lhs_dilation=lhs_dilation,
        rhs_dilation=rhs_dilation,
        dimension_numbers=dimension_numbers,
        precision=precision,
    )


def depthwise_conv(
    x: jax.Array,
    kernel: jax.Array,
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    *,
    kernel_dilation: int | Sequence[int] = 1,
    precision: lax.PrecisionLike = None,
    preferred_element_type: Any = None,
) -> jax.Array:
    """A convolution of each channel by itself.

    Args:
      x: `[B, spatial axes, C]`.
      kernel: `[*kernel size, 1, C * m]`; output channel `c * m + i` comes of channel `c`.
      strides, kernel_dilation: one for each spatial axis, or one for all.
      padding: `SAME`, `SAME_LOWER`, `VALID` or a (low, high) pair for each spatial axis.

    Returns:
      `[B, spatial axes, C * m]`.

    Raises:
      ModelError: `x` and `kernel` do not have the same number of spatial axes.
      TypeError, ValueError: what `jax.lax` raises; the shapes are named.
    """
    rank = x.ndim - 2
    if rank < 1 or kernel.ndim != x.ndim:
        raise ModelError(
            f"a depthwise convolution needs [B, spatial axes, C] and [*kernel size, 1, C * m], "
            f"not {list(x.shape)} and {list(kernel.shape)}"
        )
    axes = "DHW"[-rank:] if rank <= 3 else "".join(map(str, range(rank)))
    return conv_general_dilated(
        x,
        kernel,
        (strides,) * rank if isinstance(strides, int) else strides,
        padding,
        rhs_dilation=(kernel_dilation,) * rank
        if isinstance(kernel_dilation, int)
        else kernel_dilation,
        dimension_numbers=(f"N{axes}C", f"{axes}IO", f"N{axes}C"),
        feature_group_count=x.shape[-1],
        precision=precision,
        preferred_element_type=preferred_element_type,
    )
