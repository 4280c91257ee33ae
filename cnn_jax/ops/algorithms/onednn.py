"""oneDNN's compiled kernels, an optional extra: forward, input and weight gradients.

Images go in and out as they lie in memory, channels last; kernels of any layout are packed
into the one oneDNN computes in, in each call.
"""

from __future__ import annotations

import functools

import jax
import numpy as np
from jax import lax

from cnn_jax.errors import NativeError
from cnn_jax.ops.geometry import Convolution
from cnn_jax.ops.native.library import kernels
from cnn_jax.ops.native.problem import Problem, Role, as_problem


def fits(conv: Convolution) -> bool:
    """Where the extra is installed, float32 and bfloat16 problems with a kernel of their own."""
    problem = as_problem(conv)
    return problem is not None and _has_kernel(problem)


@functools.lru_cache(maxsize=4096)
def _has_kernel(problem: Problem) -> bool:
    try:
        implementation = kernels().implementation(problem)
    except NativeError:
        return False
    # `ref` is oneDNN's plain loop for what it has no kernel for: slow.
    return implementation is not None and "ref" not in implementation


def apply(conv: Convolution, lhs: jax.Array, rhs: jax.Array) -> jax.Array:
    """The convolution by a call of oneDNN."""
    problem = as_problem(conv)
    if problem is None:
        raise NativeError("oneDNN has no such convolution: ask `fits` first")
    # In the weight gradient, batch and channels of both operands have exchanged roles.
    exchanged = problem.role is Role.WEIGHT_GRADIENT
    lhs = _channels_last(lhs, conv.lhs_spec, exchanged=exchanged)
    if exchanged:
        rhs = _channels_last(rhs, conv.rhs_spec, exchanged=True)
        return _call(problem, conv, conv.out_shape, lhs, rhs)
    if problem.role is Role.INPUT_GRADIENT:
        rhs = lax.rev(rhs, conv.rhs_spec[2:])  # which undoes the reversal of a gradient's kernel
    shape = (conv.out_shape[conv.out_spec[0]], *conv.out_space, conv.out_channels)
    out = _call(problem, conv, shape, lhs, rhs)
    batch, channels, *space = conv.out_spec
    return lax.transpose(out, np.argsort((batch, *space, channels)))


def _channels_last(x: jax.Array, spec: tuple[int, ...], *, exchanged: bool = False) -> jax.Array:
    batch, channels, *space = spec
    if exchanged:
        batch, channels = channels, batch
    return lax.transpose(x, (batch, *space, channels))


def _call(
    problem: Problem, conv: Convolution, shape: tuple[int, ...], lhs: jax.Array, rhs: jax.Array
) -> jax.Array:
    call = jax.ffi.ffi_call(kernels().target, jax.ShapeDtypeStruct(shape, conv.out_dtype))
    return call(lhs, rhs, problem=np.asarray(problem.words(), np.int64))
