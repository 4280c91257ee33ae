"""Blur pooling: downsampling after a small blur, so that shifts of the image matter less."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cnn_jax.errors import ModelError
from cnn_jax.ops.convolution import depthwise_conv
from cnn_jax.ops.windows import check_floating, sum_dtype

_PADDINGS = ("reflect", "edge", "constant")


def blur_pool(
    x: jax.Array, strides: int | Sequence[int], kernel_size: int = 3, padding: str = "reflect"
) -> jax.Array:
    """A binomial blur of each channel, then every `strides`-th position.

    Anti-aliased downsampling of Zhang 2019, "Making Convolutional Networks Shift-Invariant
    Again". Along each axis the filter is the row `kernel_size - 1` of Pascal's triangle over
    its sum, 1 2 1 / 4 for 3. The edges are padded by (kernel_size - 1) / 2, the odd one
    after, as in the paper's code, so n positions become ceil(n / stride).

    Args:
      x: floating `[B, spatial axes, C]`; `[..., spatial axes, C]` where `strides` has one entry
        for each spatial axis.
      strides: along each spatial axis, or one number for all.
      kernel_size: length of the filter along each axis; 1 does not blur.
      padding: as `numpy.pad` names it: `reflect` and `edge` keep a constant image constant,
        `constant` pads with zeros.

    Returns:
      `[..., pooled spatial axes, C]`, the dtype of `x`; summed in float32 where that is narrower.

    Raises:
      ModelError: `x` is not floating, the arguments do not fit its axes, or the image is too
        small to be reflected.
    """
    check_floating(x)
    steps = (strides,) * (x.ndim - 2) if isinstance(strides, int) else tuple(strides)
    if not steps or x.ndim <= len(steps):
        raise ModelError(
            f"blur pooling with strides {strides} needs input [..., spatial axes, C], "
            f"not {list(x.shape)}"
        )
    if min(*steps, kernel_size) < 1:
        raise ModelError(f"strides {steps} and kernel_size {kernel_size} must be 1 or more")
    if padding not in _PADDINGS:
        raise ModelError(f"padding {padding!r} must be one of {', '.join(_PADDINGS)}")
    high = kernel_size // 2
    first = x.ndim - 1 - len(steps)
    sizes = x.shape[first:-1]
    if min(sizes) < 1 or (padding == "reflect" and min(sizes) <= high):
        raise ModelError(
            f"images {list(sizes)} are too small for padding {padding!r} of {high} positions: "
            "take a smaller kernel_size or padding 'edge'"
        )
    blur = _Blur(kernel_size, padding, first)
    return blur.inside(x.astype(sum_dtype(x)), steps, 0).astype(x.dtype)


@dataclass(frozen=True)
class _Blur:
    """The filter along each spatial axis, from axis `first` on.

    Inside the image it is a depthwise convolution, whose gradient is one, too. Only the windows
    that reach into the padding are made by padding and slicing: the gradient of that would go
    over the whole image for each entry of the filter.
    """

    length: int
    mode: str
    first: int

    @property
    def weights(self) -> list[float]:
        """A row of Pascal's triangle over its sum."""
        return [math.comb(self.length - 1, i) / 2 ** (self.length - 1) for i in range(self.length)]

    @property
    def before(self) -> int:
        """Positions of a window before the one it is for."""
        return (self.length - 1) // 2

    @property
    def after(self) -> int:
        """Positions of a window after the one it is for."""
        return self.length // 2

    def inside(self, x: jax.Array, steps: tuple[int, ...], done: int) -> jax.Array:
        """All windows along the axes from `done` on; along those before, `x` holds whole ones."""
        if done == len(steps):
            return self._convolve(x, steps)
        axis, step = self.first + done, steps[done]
        length = x.shape[axis]
        start, stop = -(-self.before // step), (length - 1 - self.after) // step + 1
        if start >= stop:
            return self._pad_and_slice(x, steps, done, (self.before, self.after))
        count = -(-length // step)
        whole = lax.slice_in_dim(
            x, start * step - self.before, (stop - 1) * step + self.after + 1, axis=axis
        )
        parts = [self.inside(whole, steps, done + 1)]
        if start > 0:
            low = lax.slice_in_dim(x, 0, (start - 1) * step + self.after + 1, axis=axis)
            parts.insert(0, self._pad_and_slice(low, steps, done, (self.before, 0)))
        if stop < count:
            reach = (count - 1) * step + self.after - (length - 1)
            begin = stop * step - self.before
            # The last window may be reflected to before its own beginning.
            more = max(0, begin - (length - 1 - reach))
            high = lax.slice_in_dim(x, begin - more, length, axis=axis)
            high = self._pad(high, axis, (0, reach))
            high = lax.slice_in_dim(high, more, high.shape[axis], axis=axis)
            parts.append(self._pad_and_slice(high, steps, done, (0, 0)))
        return parts[0] if len(parts) == 1 else lax.concatenate(parts, axis)

    def _convolve(self, x: jax.Array, steps: tuple[int, ...]) -> jax.Array:
        """Of the windows that lie in `x`."""
        kernel = functools.reduce(np.multiply.outer, [np.asarray(self.weights)] * len(steps))
        channels = x.shape[-1]
        images = x.reshape(-1, *x.shape[self.first :])
        repeated = np.broadcast_to(kernel[..., None, None], (*kernel.shape, 1, channels))
        filters = jnp.asarray(repeated, x.dtype)
        y = depthwise_conv(images, filters, steps, "VALID", precision=lax.Precision.HIGHEST)
        return y.reshape(*x.shape[: self.first], *y.shape[1:])

    def _pad_and_slice(
        self, x: jax.Array, steps: tuple[int, ...], done: int, edges: tuple[int, int]
    ) -> jax.Array:
        """Padded by `edges` along axis `done`, and as it is due along those that follow."""
        for i, step in enumerate(steps):
            axis = self.first + i
            if i == done:
                x = self._pad(x, axis, edges)
            elif i > done:
                x = self._pad(x, axis, (self.before, self.after))
            last = x.shape[axis] - self.length
            parts = (lax.slice_in_dim(x, k, last + k + 1, step, axis) for k in range(self.length))
            x = functools.reduce(
                operator.add, (w * part for w, part in zip(self.weights, parts, strict=True))
            )
        return x

    def _pad(self, x: jax.Array, axis: int, edges: tuple[int, int]) -> jax.Array:
        if not any(edges):
            return x
        return jnp.pad(x, [edges if i == axis else (0, 0) for i in range(x.ndim)], mode=self.mode)
