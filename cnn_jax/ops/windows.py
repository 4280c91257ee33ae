"""Where the windows of a pooling lie: geometry and slices, no arithmetic."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from cnn_jax.errors import ModelError
from cnn_jax.ops.convolution import Padding

Entry = TypeVar("Entry")

# More terms than this in one expression compile slowly; then one axis follows the other.
MOST_TAPS = 16
# Along one axis, beyond this, the stock algorithm.
LONGEST_UNROLLED = 32


@dataclass(frozen=True)
class Windows:
    """Windows over the spatial axes of `[..., spatial axes, C]`, each tuple one entry an axis.

    Attributes:
      leading: number of axes before the spatial ones.
      sizes: of the images.
      shape: of a window.
      strides: between windows.
      padding: (low, high) positions before and after the image; negative ones crop.
    """

    leading: int
    sizes: tuple[int, ...]
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]

    @property
    def counts(self) -> tuple[int, ...]:
        """Windows along each spatial axis."""
        return tuple(
            (size + low + high - length) // stride + 1
            for size, (low, high), length, stride in zip(
                self.sizes, self.padding, self.shape, self.strides, strict=True
            )
        )

    @property
    def reach(self) -> tuple[int, ...]:
        """Strides that a window touches along each axis: how many windows a position is in."""
        return tuple(
            -(-length // stride) for length, stride in zip(self.shape, self.strides, strict=True)
        )

    @property
    def tile(self) -> bool:
        """Whether one window ends where the next begins, along every axis."""
        return self.shape == self.strides

    def axis_by_axis(self) -> Iterator[Windows]:
        """Windows of one axis each, last axis first, that in turn do what these do together."""
        sizes = self.sizes
        idle = Windows(
            self.leading, sizes, (1,) * len(sizes), (1,) * len(sizes), ((0, 0),) * len(sizes)
        )
        for axis in reversed(range(len(sizes))):
            along = replace(
                idle,
                sizes=sizes,
                shape=_put(idle.shape, axis, self.shape[axis]),
                strides=_put(idle.strides, axis, self.strides[axis]),
                padding=_put(idle.padding, axis, self.padding[axis]),
            )
            if along != replace(idle, sizes=sizes):
                yield along
                sizes = along.counts

    def over_all_axes(self) -> tuple[tuple[int, ...], tuple[int, ...], list[tuple[int, int]]]:
        """Shape, strides and padding with entries for leading axes and channels too."""
        ones = (1,) * self.leading
        none = [(0, 0)] * self.leading
        return (
            (*ones, *self.shape, 1),
            (*ones, *self.strides, 1),
            [*none, *self.padding, (0, 0)],
        )

    def taps(self) -> Iterator[Tap]:
        """The positions of a window, in row-major order, that lie in the image for some window."""
        for place in itertools.product(*map(range, self.shape)):
            starts, first, last = [], [], []
            for offset, size, stride, (low, _), count in zip(
                place, self.sizes, self.strides, self.padding, self.counts, strict=True
            ):
                before = low - offset  # window i reads position i * stride - before
                first.append(max(0, -(-before // stride)))
                last.append(min(count, (size - 1 + before) // stride + 1))
                starts.append(first[-1] * stride - before)
            if all(a < b for a, b in zip(first, last, strict=True)):
                yield Tap(self, place, tuple(starts), tuple(first), tuple(last))


@dataclass(frozen=True)
class Tap:
    """One position of every window, for the windows in which it lies in the image.

    Attributes:
      windows: whose position it is.
      place: the position within the window.
      starts: the position in the image for the first of these windows, along each axis.
      first, last: these windows, from and up to, along each axis.
    """

    windows: Windows
    place: tuple[int, ...]
    starts: tuple[int, ...]
    first: tuple[int, ...]
    last: tuple[int, ...]

    def of(self, x: jax.Array) -> jax.Array:
        """The values of the images `x` at this position of these windows."""
        leading, strides = self.windows.leading, self.windows.strides
        ends = [
            start + (last - first - 1) * stride + 1
            for start, first, last, stride in zip(
                self.starts, self.first, self.last, strides, strict=True
            )
        ]
        return lax.slice(
            x,
            (*(0,) * leading, *self.starts, 0),
            (*x.shape[:leading], *ends, x.shape[-1]),
            (*(1,) * leading, *strides, 1),
        )

    def within(self, y: jax.Array) -> jax.Array:
        """Of pooled `y` (one value a window) the values of these windows."""
        leading = self.windows.leading
        return lax.slice(
            y,
            (*(0,) * leading, *self.first, 0),
            (*y.shape[:leading], *self.last, y.shape[-1]),
        )

    def spread(self, values: jax.Array, fill: float | bool) -> jax.Array:
        """Values of these windows, and `fill` for all the others."""
        edges = [
            (first, count - last, 0)
            for first, last, count in zip(self.first, self.last, self.windows.counts, strict=True)
        ]
        if not any(low or high for low, high, _ in edges):
            return values
        none = [(0, 0, 0)] * self.windows.leading
        return lax.pad(values, jnp.asarray(fill, values.dtype), [*none, *edges, (0, 0, 0)])


def windows_over(
    x: jax.Array,
    window_shape: Sequence[int],
    strides: Sequence[int] | None,
    padding: Padding,
) -> Windows:
    """The windows that the arguments of a pooling ask for.

    Raises:
      ModelError: `x` is not floating, or the arguments do not fit its axes.
    """
    rank = len(window_shape)
    shape = tuple(window_shape)
    steps = (1,) * rank if strides is None else tuple(strides)
    check_floating(x)
    if rank == 0 or x.ndim <= rank:
        raise ModelError(
            f"window {shape} needs input [..., {rank} spatial axes, C], not {list(x.shape)}"
        )
    if len(steps) != rank or not (isinstance(padding, str) or len(padding) == rank):
        raise ModelError(
            f"window {shape}, strides {steps} and padding {padding} must have "
            "one entry for each spatial axis"
        )
    if min(*shape, *steps) < 1:
        raise ModelError(f"window {shape} and strides {steps} must be 1 or more along each axis")
    leading = x.ndim - rank - 1
    sizes = x.shape[leading:-1]
    windows = Windows(leading, sizes, shape, steps, _pairs(padding, sizes, shape, steps))
    if min(windows.counts) < 1:
        raise ModelError(
            f"window {shape} does not fit into images {list(sizes)} with padding "
            f"{windows.padding}: take a smaller window or pad more"
        )
    # One window alone overlaps no other, whatever the stride.
    alone = [
        max(k, s) if n == 1 else s for n, k, s in zip(windows.counts, shape, steps, strict=True)
    ]
    windows = replace(windows, strides=tuple(alone))
    if next(windows.taps(), None) is None:
        raise ModelError(
            f"no window {shape} with strides {steps} touches images {list(sizes)} within "
            f"padding {windows.padding}: pad less"
        )
    return windows


def check_floating(x: jax.Array) -> None:
    """Raise ModelError where `x` is not floating."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ModelError(f"pooling needs floating-point input, not {x.dtype}: convert it first")


def sum_dtype(x: jax.Array) -> Any:
    """float32 to sum what is narrower, since XLA on CPU rounds each sum; else that of `x`."""
    return jnp.float32 if jnp.finfo(x.dtype).bits < 32 else x.dtype


def _pairs(
    padding: Padding, sizes: Sequence[int], shape: Sequence[int], strides: Sequence[int]
) -> tuple[tuple[int, int], ...]:
    if not isinstance(padding, str):
        return tuple((low, high) for low, high in padding)
    if padding.upper() not in ("SAME", "VALID"):
        raise ModelError(f"padding {padding!r} must be 'SAME', 'VALID' or (low, high) pairs")
    return tuple(lax.padtype_to_pads(sizes, shape, strides, padding.upper()))


def _put(entries: tuple[Entry, ...], axis: int, entry: Entry) -> tuple[Entry, ...]:
    return (*entries[:axis], entry, *entries[axis + 1 :])
