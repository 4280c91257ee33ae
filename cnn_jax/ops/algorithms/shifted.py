"""Depthwise convolution as a sum of shifted images, each times one tap of the kernel.

A depthwise convolution multiplies every number it reads by one number for each tap, so that
there is no matrix product in it: it costs its passes through memory. With channels last,
XLA makes one vectorised loop of the whole sum, where its own convolution walks group by
group. Groups of a few channels are as many sums, one for each channel of a group. An input
gradient, whose images are dilated by the stride, falls into phases: the outputs of one phase
meet the same taps, and no zero of the dilation is multiplied.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from cnn_jax.ops.algorithms import depthwise, layout
from cnn_jax.ops.geometry import Convolution

# Of one axis and phase: each tap, and the entry of the images that the first output meets.
Taps = Sequence[tuple[int, int]]


def fits(conv: Convolution) -> bool:
    """Floating-point images in narrow groups, under a kernel that is not large.

    The input gradient of a depthwise convolution with a channel multiplier has groups as wide.
    """
    terms = conv.in_channels // conv.feature_groups * math.prod(conv.kernel)
    return (
        conv.batch_groups == 1 and terms <= depthwise.MOST_TERMS and depthwise.is_computable(conv)
    )


def apply(conv: Convolution, lhs: jax.Array, rhs: jax.Array) -> jax.Array:
    """The convolution, laid out as `conv.out_spec`, summed in float32 or better."""
    images = layout.channels_last(conv.lhs_spec, lhs)
    kernel = layout.kernel_first(conv, rhs).astype(depthwise.sum_dtype(conv))
    width, times = conv.in_channels // conv.feature_groups, conv.out_channels // conv.feature_groups
    # Of each input channel of the groups: for each output channel, what it is made of.
    inputs = [depthwise.repeat_channels(images[..., i::width], times) for i in range(width)]
    out = _shift_and_add(conv, inputs, [kernel[..., i, :] for i in range(width)])
    return layout.from_channels_last(conv, out.astype(conv.out_dtype))


def _shift_and_add(
    conv: Convolution, inputs: Sequence[jax.Array], kernels: Sequence[jax.Array]
) -> jax.Array:
    """Inputs [N, *space, F], each with its kernel [*taps, F], to [N, *out space, F]."""
    axes = [_phases(conv, axis) for axis in range(conv.rank)]
    counts = [len(phases) for phases in axes]
    lengths = [math.ceil(n / count) for n, count in zip(conv.out_space, counts, strict=True)]
    steps = [
        stride * count // dilation
        for stride, count, dilation in zip(conv.strides, counts, conv.lhs_dilation, strict=True)
    ]
    padding, origin = _cover(conv, axes, lengths, steps)
    inputs = [lax.pad(images, jnp.zeros((), images.dtype), padding) for images in inputs]

    def product(
        images: jax.Array, kernel: jax.Array, taps: tuple[tuple[int, int], ...]
    ) -> jax.Array:
        start = [entry + shift for (_, entry), shift in zip(taps, origin, strict=True)]
        shifted = depthwise.window(images, start, lengths, steps).astype(kernel.dtype)
        weights = kernel[tuple(tap for tap, _ in taps)]
        return shifted * jnp.expand_dims(weights, range(images.ndim - 1))

    def one_phase(chosen: Sequence[Taps]) -> jax.Array:
        products = [
            product(images, kernel, taps)
            for images, kernel in zip(inputs, kernels, strict=True)
            for taps in itertools.product(*chosen)
        ]
        shape = (conv.batch, *lengths, conv.out_channels)
        return depthwise.add_up(products) if products else jnp.zeros(shape, kernels[0].dtype)

    out = _interleave([one_phase(chosen) for chosen in itertools.product(*axes)], counts)
    return out[(slice(None), *(slice(length) for length in conv.out_space))]


def _phases(conv: Convolution, axis: int) -> list[Taps]:
    """For each phase of the outputs along `axis`: its taps and the entries they start from.

    Output `phase + count * q` meets entry `entry + step * q` of the images under each tap,
    where a step is `stride * count / dilation`.
    """
    stride, dilation = conv.strides[axis], conv.lhs_dilation[axis]
    low, _ = conv.padding[axis]
    starts = [tap * conv.rhs_dilation[axis] - low for tap in range(conv.kernel[axis])]
    return [
        [
            (tap, (start + phase * stride) // dilation)
            for tap, start in enumerate(starts)
            if (start + phase * stride) % dilation == 0
        ]
        for phase in range(dilation // math.gcd(stride, dilation))
    ]


def _cover(
    conv: Convolution,
    axes: Sequence[Sequence[Taps]],
    lengths: Sequence[int],
    steps: Sequence[int],
) -> tuple[list[tuple[int, int, int]], list[int]]:
    """The padding that leaves the entries that some tap meets; and where entry 0 then is."""
    config, origin = [(0, 0, 0)], []
    for phases, length, step, space in zip(axes, lengths, steps, conv.in_space, strict=True):
        entries = [entry for taps in phases for _, entry in taps] or [0]
        first, last = min(entries), max(entries) + (length - 1) * step
        config.append((-first, last + 1 - space, 0))
        origin.append(-first)
    return [*config, (0, 0, 0)], origin


def _interleave(phases: list[jax.Array], counts: Sequence[int]) -> jax.Array:
    """The phases of all axes, those of the last axis next to each other, as one array."""
    for axis in range(len(counts), 0, -1):
        count = counts[axis - 1]
        if count > 1:
            groups = [phases[i : i + count] for i in range(0, len(phases), count)]
            phases = [lax.collapse(jnp.stack(g, axis + 1), axis, axis + 2) for g in groups]
    (out,) = phases
    return out
