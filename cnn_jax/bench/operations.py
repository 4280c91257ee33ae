"""Single operations in JAX, ours and stock, with their gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from flax import linen
from jax import lax

from cnn_jax import ops
from cnn_jax.bench.cases import Convolution, Operation, Pool

IMPLEMENTATIONS = ("ours", "stock")


def arguments_of(operation: Operation, dtype: Any, seed: int = 0) -> tuple[jax.Array, ...]:
    """Random images, kernel (of a convolution) and cotangent of the output."""
    shapes = [operation.input_shape, operation.output_shape]
    if isinstance(operation, Convolution):
        shapes.insert(1, operation.kernel_shape)
    keys = jax.random.split(jax.random.key(seed), len(shapes))
    pairs = zip(keys, shapes, strict=True)
    return tuple(jax.random.normal(key, shape, dtype) for key, shape in pairs)


def function_of(
    operation: Operation, part: str, implementation: str
) -> Callable[..., jax.Array | Sequence[jax.Array]]:
    """A function of all of `arguments_of`, to be jitted.

    Args:
      operation: what is computed.
      part: one of `operation.parts`. A gradient pulls the cotangent back; what it needs of
        the forward pass is computed with it.
      implementation: `ours` or `stock`.
    """
    forward = _forward(operation, implementation)
    if part == "forward":
        return lambda *arguments: forward(*arguments[:-1])
    if part == "input gradient":
        return lambda x, w, dy: jax.vjp(lambda x: forward(x, w), x)[1](dy)
    if part == "weight gradient":
        return lambda x, w, dy: jax.vjp(lambda w: forward(x, w), w)[1](dy)
    return lambda *arguments: jax.vjp(forward, *arguments[:-1])[1](arguments[-1])


def _forward(operation: Operation, implementation: str) -> Callable[..., jax.Array]:
    if isinstance(operation, Pool):
        return _pool(operation, linen if implementation == "stock" else ops)
    layout = lax.conv_dimension_numbers(
        operation.input_shape, operation.kernel_shape, _channels_last(len(operation.spatial))
    )
    convolve: Any = (
        lax.conv_general_dilated if implementation == "stock" else ops.conv_general_dilated
    )

    def forward(x: jax.Array, w: jax.Array) -> jax.Array:
        y: jax.Array = convolve(
            x,
            w,
            operation.strides,
            operation.padding,
            lhs_dilation=operation.input_dilation,
            rhs_dilation=operation.dilation,
            dimension_numbers=layout,
            feature_group_count=operation.groups,
        )
        return y

    return forward


def _pool(operation: Pool, library: Any) -> Callable[..., jax.Array]:
    pool = library.max_pool if operation.kind == "max" else library.avg_pool

    def forward(x: jax.Array) -> jax.Array:
        y: jax.Array = pool(x, operation.window, operation.strides, operation.padding)
        return y

    return forward


def _channels_last(rank: int) -> tuple[str, str, str]:
    axes = "DHW"[-rank:]
    return f"N{axes}C", f"{axes}IO", f"N{axes}C"
