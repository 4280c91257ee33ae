"""What one convolution is, apart from its arrays: shapes, strides, padding, layout."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from cnn_jax.ops.traces import traced

# Names of axes that `contract` pairs: example, input and output channel, positions.
Labels = Sequence[str]


@dataclass(frozen=True)
class Convolution:
    """Shapes and parameters of a `jax.lax.conv_general_dilated`, in its own terms.

    Every convolution is one, gradients too: the weight gradient of NHWC images is the
    convolution of the images, with the roles of batch and channels exchanged, by the
    gradient of the output. So an algorithm asks for roles, never for a layout:
    `lhs_spec[0]` is the axis of the left operand that plays the batch, `lhs_spec[1]` its
    channels, the rest its spatial axes; `rhs_spec` is (output channels, input channels,
    spatial axes), `out_spec` (batch, channels, spatial axes).

    Attributes:
      lhs_shape, rhs_shape, out_shape: as laid out.
      dtype: of both operands.
      out_dtype: of the result.
      params: the parameters of the stock primitive, `padding` as (low, high) pairs.
    """

    lhs_shape: tuple[int, ...]
    rhs_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    dtype: Any
    out_dtype: Any
    params: Mapping[str, Any] = field(hash=False)

    @property
    def lhs_spec(self) -> tuple[int, ...]:
        """Axes of the left operand: batch, channels, spatial axes."""
        return tuple(self.params["dimension_numbers"].lhs_spec)

    @property
    def rhs_spec(self) -> tuple[int, ...]:
        """Axes of the right operand: output channels, input channels, spatial axes."""
        return tuple(self.params["dimension_numbers"].rhs_spec)

    @property
    def out_spec(self) -> tuple[int, ...]:
        """Axes of the result: batch, channels, spatial axes."""
        return tuple(self.params["dimension_numbers"].out_spec)

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return len(self.lhs_shape) - 2

    @property
    def batch(self) -> int:
        """Length of the axis of the left operand that plays the batch."""
        return self.lhs_shape[self.lhs_spec[0]]

    @property
    def in_channels(self) -> int:
        """Channels of the left operand, of all groups together."""
        return self.lhs_shape[self.lhs_spec[1]]

    @property
    def out_channels(self) -> int:
        """Channels of the result, of all feature groups together."""
        return self.rhs_shape[self.rhs_spec[0]]

    @property
    def in_space(self) -> tuple[int, ...]:
        """Lengths of the spatial axes of the left operand."""
        return tuple(self.lhs_shape[axis] for axis in self.lhs_spec[2:])

    @property
    def kernel(self) -> tuple[int, ...]:
        """Lengths of the spatial axes of the right operand."""
        return tuple(self.rhs_shape[axis] for axis in self.rhs_spec[2:])

    @property
    def out_space(self) -> tuple[int, ...]:
        """Lengths of the spatial axes of the result."""
        return tuple(self.out_shape[axis] for axis in self.out_spec[2:])

    @property
    def strides(self) -> tuple[int, ...]:
        """Step of the window along each spatial axis."""
        return tuple(self.params["window_strides"])

    @property
    def padding(self) -> tuple[tuple[int, int], ...]:
        """(low, high) for each spatial axis; may be negative, which cuts."""
        return tuple(self.params["padding"])

    @property
    def lhs_dilation(self) -> tuple[int, ...]:
        """Spread of the left operand along each spatial axis; 1 is none."""
        return tuple(self.params["lhs_dilation"])

    @property
    def rhs_dilation(self) -> tuple[int, ...]:
        """Spread of the right operand along each spatial axis; 1 is none."""
        return tuple(self.params["rhs_dilation"])

    @property
    def feature_groups(self) -> int:
        """Groups of input channels that do not mix."""
        return int(self.params["feature_group_count"])

    @property
    def batch_groups(self) -> int:
        """Groups of the batch that do not mix."""
        return int(self.params["batch_group_count"])

    @property
    def multiply_adds(self) -> int:
        """Products summed, those with padding and with the zeros of a dilation included."""
        per_output = math.prod(self.rhs_shape) // max(self.out_channels, 1)
        return math.prod(self.out_shape) * per_output

    @property
    def is_weight_gradient(self) -> bool:
        """Whether it has the form of one: images as the kernel, of more positions than result.

        Then the batch plays the input channels of the convolution whose gradient it is, and the
        input channels its examples.
        """
        return math.prod(self.kernel) > math.prod(self.out_space)

    @property
    def precision(self) -> Any:
        """`jax.lax.Precision` of the products, one for each operand, or None."""
        return self.params["precision"]


def words(conv: Convolution) -> str:
    """What a convolution is, for a reader; layout and padding are left out."""
    if conv.is_weight_gradient:
        # The roles that a reader knows are exchanged.
        groups = conv.batch_groups
        what = f"weight gradient of {_times(conv.out_space)}"
        channels = f"{conv.batch} to {conv.out_channels} channels"
        images, steps = f"{conv.in_channels} x {_times(conv.in_space)}", conv.rhs_dilation
    else:
        groups = conv.feature_groups * conv.batch_groups
        what = _times(conv.kernel)
        channels = f"{conv.in_channels} to {conv.out_channels} channels"
        images, steps = f"{conv.batch} x {_times(conv.in_space)}", conv.strides
        if any(number != 1 for number in conv.rhs_dilation):
            what += f" dilated by {_times(conv.rhs_dilation)}"
    parts = [what, channels, f"images {images}"]
    for name, numbers in (("stride", steps), ("spread by", conv.lhs_dilation)):
        if any(number != 1 for number in numbers):
            parts.append(f"{name} {_times(numbers)}")
    if groups > 1:
        parts.append(f"{groups} groups")
    return ", ".join([*parts, str(conv.dtype)])


def _times(numbers: Sequence[int]) -> str:
    return "x".join(str(number) for number in numbers) or "no space"


def describe(
    lhs: jax.Array | jax.ShapeDtypeStruct,
    rhs: jax.Array | jax.ShapeDtypeStruct,
    params: Mapping[str, Any],
) -> Convolution:
    """The convolution of two arrays, or shapes, under the stock primitive's parameters."""
    (out,) = traced(lax.conv_general_dilated_p.bind, lhs, rhs, **params).out_avals
    return Convolution(
        tuple(lhs.shape), tuple(rhs.shape), tuple(out.shape), lhs.dtype, out.dtype, params
    )


def pad_space(conv: Convolution, lhs: jax.Array) -> jax.Array:
    """The left operand with its dilation and its padding written out as zeros."""
    config = [(0, 0, 0)] * lhs.ndim
    for axis, (low, high), dilation in zip(
        conv.lhs_spec[2:], conv.padding, conv.lhs_dilation, strict=True
    ):
        config[axis] = (low, high, dilation - 1)
    if not any(any(entry) for entry in config):
        return lhs
    return lax.pad(lhs, jnp.zeros((), lhs.dtype), config)


def window(
    conv: Convolution,
    padded: jax.Array,
    start: Sequence[int],
    lengths: Sequence[int],
    steps: Sequence[int],
) -> jax.Array:
    """From `padded`, along the spatial axes, `lengths` entries from `start` by `steps`."""
    starts, limits, strides = [0] * padded.ndim, list(padded.shape), [1] * padded.ndim
    for axis, first, length, step in zip(conv.lhs_spec[2:], start, lengths, steps, strict=True):
        starts[axis], limits[axis], strides[axis] = first, first + (length - 1) * step + 1, step
    return lax.slice(padded, starts, limits, strides)


def contract(
    a: jax.Array,
    a_labels: Labels,
    b: jax.Array,
    b_labels: Labels,
    out_labels: Labels,
    *,
    precision: Any = None,
    preferred_element_type: Any = None,
) -> jax.Array:
    """Sum of products over the labels that the result lacks, as one `dot_general`.

    Labels in both operands and in the result are batch axes. A label that only one operand
    has must be in the result.
    """
    shared = [x for x in a_labels if x in b_labels]
    summed = [x for x in shared if x not in out_labels]
    batch = [x for x in shared if x in out_labels]
    numbers = (
        (
            tuple(a_labels.index(x) for x in summed),
            tuple(b_labels.index(x) for x in summed),
        ),
        (tuple(a_labels.index(x) for x in batch), tuple(b_labels.index(x) for x in batch)),
    )
    product = lax.dot_general(
        a, b, numbers, precision=precision, preferred_element_type=preferred_element_type
    )
    found = [
        *batch,
        *(x for x in a_labels if x not in shared),
        *(x for x in b_labels if x not in shared),
    ]
    order = [found.index(x) for x in out_labels]
    return product if order == sorted(order) else lax.transpose(product, order)
