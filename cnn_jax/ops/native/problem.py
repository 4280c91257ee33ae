"""A convolution in oneDNN's terms: source, weights and destination, and which is computed."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import jax.numpy as jnp

from cnn_jax.ops.geometry import Convolution

_TYPES = {"float32": 0, "bfloat16": 1}  # as problem.h reads them
MAX_RANK = 3


class Role(enum.IntEnum):
    """What is computed of the other two."""

    FORWARD = 0  # the destination
    INPUT_GRADIENT = 1  # the gradient of the source
    WEIGHT_GRADIENT = 2  # the gradient of the weights


@dataclass(frozen=True)
class Problem:
    """One forward convolution, of which the role says what is unknown.

    destination[n, o, y] = sum over c, k of
    source[n, c, strides * y + dilation * k - low] weights[g, o, c, k]

    Attributes:
      source, destination: batch, channels, spatial axes; in memory the channels are last.
      weights: groups, output and input channels of one group, spatial axes.
      weights_steps: distance in memory, in elements, between neighbours along each axis.
      types: of the two that are given, and of the third, as codes of `_TYPES`.
    """

    role: Role
    types: tuple[int, int]
    source: tuple[int, ...]
    weights: tuple[int, ...]
    weights_steps: tuple[int, ...]
    destination: tuple[int, ...]
    strides: tuple[int, ...]
    dilation: tuple[int, ...]
    low: tuple[int, ...]
    high: tuple[int, ...]

    def words(self) -> list[int]:
        """All of it in one row of integers, as `Problem` in problem.h reads it."""
        less_one = [step - 1 for step in self.dilation]  # oneDNN counts the gaps
        return [
            *(self.role, len(self.strides), *self.types, *self.source),
            *(*self.weights, *self.weights_steps, *self.destination),
            *(*self.strides, *less_one, *self.low, *self.high),
        ]


def as_problem(conv: Convolution) -> Problem | None:
    """The problem that a convolution is, or None where oneDNN has no such problem."""
    types = tuple(_TYPES.get(jnp.dtype(dtype).name) for dtype in (conv.dtype, conv.out_dtype))
    if types not in ((0, 0), (1, 1), (1, 0)) or not 1 <= conv.rank <= MAX_RANK:
        return None
    problem = _PROBLEMS[role_of(conv)](conv, types)
    return problem if problem is not None and _is_sound(problem) else None


def role_of(conv: Convolution) -> Role:
    """The role by the looks: gradients are convolutions too, of telling lengths."""
    if any(dilation > 1 for dilation in conv.lhs_dilation):
        return Role.INPUT_GRADIENT
    if conv.batch_groups > 1 or (conv.is_weight_gradient and conv.feature_groups == 1):
        return Role.WEIGHT_GRADIENT
    return Role.INPUT_GRADIENT if _reversed(conv) else Role.FORWARD


def _reversed(conv: Convolution) -> bool:
    """Whether it looks like the input gradient of unstrided NHWC images: input channels last.

    As a forward convolution it would be right too, but on a kernel that is first reversed.
    """
    channels_last = conv.lhs_spec[1] == conv.rank + 1 and conv.rhs_spec[1] == conv.rank + 1
    unit = (1,) * conv.rank
    return channels_last and conv.feature_groups == 1 and conv.strides == unit


def _forward(conv: Convolution, types: tuple[int, int]) -> Problem:
    out_axis, in_axis, *space = conv.rhs_spec
    return Problem(
        role=Role.FORWARD,
        types=types,
        source=(conv.batch, conv.in_channels, *conv.in_space),
        destination=(conv.batch, conv.out_channels, *conv.out_space),
        **_weights(conv.rhs_shape, conv.feature_groups, out_axis, in_axis, space),
        strides=conv.strides,
        dilation=conv.rhs_dilation,
        low=tuple(low for low, _ in conv.padding),
        high=tuple(high for _, high in conv.padding),
    )


def _input_gradient(conv: Convolution, types: tuple[int, int]) -> Problem | None:
    """The left operand, spread by a stride, is the gradient of a destination."""
    if conv.batch_groups > 1 or any(stride > 1 for stride in conv.strides):
        return None
    out_axis, in_axis, *space = conv.rhs_spec
    groups = conv.feature_groups
    low = tuple(
        (length - 1) * dilation - low
        for length, dilation, (low, _) in zip(
            conv.kernel, conv.rhs_dilation, conv.padding, strict=True
        )
    )
    return Problem(
        role=Role.INPUT_GRADIENT,
        types=types,
        source=(conv.batch, conv.out_channels, *conv.out_space),
        destination=(conv.batch, conv.in_channels, *conv.in_space),
        **_weights(conv.rhs_shape, groups, out_axis, in_axis, space, exchanged=True),
        strides=conv.lhs_dilation,
        dilation=conv.rhs_dilation,
        low=low,
        high=_high(
            conv.out_space, conv.in_space, conv.kernel, conv.lhs_dilation, conv.rhs_dilation, low
        ),
    )


def _weight_gradient(conv: Convolution, types: tuple[int, int]) -> Problem | None:
    """Batch and channels have exchanged roles: the right operand is a destination's gradient."""
    if conv.feature_groups > 1:
        return None
    in_axis, out_axis, *space = conv.out_spec
    low = tuple(low for low, _ in conv.padding)
    return Problem(
        role=Role.WEIGHT_GRADIENT,
        types=types,
        source=(conv.in_channels, conv.batch, *conv.in_space),
        destination=(conv.in_channels, conv.out_channels, *conv.kernel),
        **_weights(conv.out_shape, conv.batch_groups, out_axis, in_axis, space),
        strides=conv.rhs_dilation,
        dilation=conv.strides,
        low=low,
        high=_high(
            conv.in_space, conv.kernel, conv.out_space, conv.rhs_dilation, conv.strides, low
        ),
    )


def _weights(
    shape: Sequence[int],
    groups: int,
    out_axis: int,
    in_axis: int,
    space: Sequence[int],
    *,
    exchanged: bool = False,
) -> dict[str, tuple[int, ...]]:
    """Lengths and steps of weights, whose `out_axis` holds all groups one after another.

    Args:
      exchanged: what is `out_axis` of the array are the input channels of the problem.
    """
    steps = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    in_group = shape[out_axis] // groups
    lengths = [in_group, shape[in_axis]]
    channel_steps = [steps[out_axis], steps[in_axis]]
    if exchanged:
        lengths.reverse()
        channel_steps.reverse()
    return {
        "weights": (groups, *lengths, *(shape[axis] for axis in space)),
        "weights_steps": (
            in_group * steps[out_axis],
            *channel_steps,
            *(steps[axis] for axis in space),
        ),
    }


def _high(
    source: Sequence[int],
    destination: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilation: Sequence[int],
    low: Sequence[int],
) -> tuple[int, ...]:
    """Padding after the end that the last position needs; none where it ends before."""
    axes = zip(source, destination, kernel, strides, dilation, low, strict=True)
    return tuple(
        max(0, (outputs - 1) * stride + (length - 1) * gap + 1 - inputs - before)
        for inputs, outputs, length, stride, gap, before in axes
    )


_PROBLEMS: Mapping[Role, Callable[[Convolution, tuple[int, int]], Problem | None]] = {
    Role.FORWARD: _forward,
    Role.INPUT_GRADIENT: _input_gradient,
    Role.WEIGHT_GRADIENT: _weight_gradient,
}


def _is_sound(problem: Problem) -> bool:
    """Whether padding does not cut and the lengths belong together, as oneDNN demands."""
    axes = zip(
        problem.source[2:],
        problem.destination[2:],
        problem.weights[3:],
        problem.strides,
        problem.dilation,
        problem.low,
        problem.high,
        strict=True,
    )
    return all(
        low >= 0
        and high >= 0
        and (inputs + low + high - (length - 1) * gap - 1) // stride + 1 == outputs
        for inputs, outputs, length, stride, gap, low, high in axes
    )
