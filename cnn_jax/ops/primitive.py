"""The convolution as a primitive of our own: one arithmetic, many algorithms.

A primitive, because a convolution is bilinear and stays one under differentiation: its
derivatives, in either mode and of any order, are convolutions again, and so each of them
gets the algorithm that suits its own shapes. `jax.custom_vjp` would lose forward mode.

What differentiation and `jax.vmap` do to a convolution is not written a second time: the
stock primitive's rules are traced, and ours is put where the stock one stands. Only one thing
differs. Where images and kernels both carry the axis of a `vmap`, as for several networks
at once, the stock rule makes one convolution with as many groups, for which XLA has no fast
kernel on a CPU. Ours keeps the axis apart (`members`).

The algorithm is chosen when the primitive is lowered, and so for the platform that will run
it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jax.extend.core import Literal, Primitive
from jax.interpreters import ad, batching, mlir

from cnn_jax.ops.choice import compute
from cnn_jax.ops.traces import traced

_stock_p = lax.conv_general_dilated_p

# Operands, parameters and result are those of the stock primitive, and two more parameters:
# `members`: both operands and the result carry a leading axis, of convolutions of their own;
# `wanted`: the algorithm asked for where it was traced, or None.
CONVOLUTION = "cnn_jax_conv_general_dilated"  # its name in a jaxpr
conv_p = Primitive(CONVOLUTION)


def rebind(function: Callable[..., Any], *operands: Any, wanted: str | None, **options: Any) -> Any:
    """`function(*operands, **options)`, with our convolution wherever it binds the stock one.

    The function is kept: see `traced`.
    """
    closed = traced(function, *operands, **options)
    values = dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))
    values.update(zip(closed.jaxpr.invars, operands, strict=True))

    def read(variable: Any) -> Any:
        return variable.val if isinstance(variable, Literal) else values[variable]

    for equation in closed.jaxpr.eqns:
        inputs = [read(variable) for variable in equation.invars]
        if equation.primitive is _stock_p:
            outputs = conv_p.bind(*inputs, **equation.params, members=False, wanted=wanted)
        else:
            outputs = equation.primitive.bind(*inputs, **equation.params)
        if not equation.primitive.multiple_results:
            outputs = [outputs]
        values.update(zip(equation.outvars, outputs, strict=True))
    (result,) = closed.jaxpr.outvars
    return read(result)


def _call(lhs: Any, rhs: Any, **params: Any) -> Any:
    # Outside `jit`, compiled by itself, as every operation of jax is.
    with jax.disable_jit(False):
        return _compiled(tuple(sorted(params.items())))(lhs, rhs)


conv_p.def_impl(_call)


@functools.lru_cache(maxsize=1024)
def _compiled(params: tuple[tuple[str, Any], ...]) -> Callable[..., Any]:
    return jax.jit(functools.partial(conv_p.bind, **dict(params)))


def _stock(lhs: Any, rhs: Any, *, members: bool = False, **params: Any) -> Any:
    stock = functools.partial(_stock_p.bind, **params)
    return (jax.vmap(stock) if members else stock)(lhs, rhs)


def _shape(lhs: Any, rhs: Any, *, members: bool, wanted: str | None, **params: Any) -> Any:
    (result,) = traced(_stock, lhs, rhs, members=members, **params).out_avals
    return result


conv_p.def_abstract_eval(_shape)


def _pulled_back(cotangent: Any, other: Any, *, left: bool, linear: Any, **params: Any) -> Any:
    """The cotangent of the operand of type `linear`, the left or the right one."""

    def stock(linear: Any) -> Any:
        return _stock_p.bind(*((linear, other) if left else (other, linear)), **params)

    (result,) = jax.linear_transpose(stock, linear)(cotangent)
    return result


def _transposed(
    left: bool,
    cotangent: Any,
    lhs: Any,
    rhs: Any,
    *,
    members: bool,
    wanted: str | None,
    **params: Any,
) -> Any:
    """The cotangent of one operand, the left or the right one, of which only the type is known."""
    linear, other = (lhs.aval, rhs) if left else (rhs.aval, lhs)
    (of_one,) = traced(_first if members else _whole, linear).out_avals

    def rebound(cotangent: Any, other: Any) -> Any:
        return rebind(
            _pulled_back, cotangent, other, wanted=wanted, left=left, linear=of_one, **params
        )

    return (jax.vmap(rebound) if members else rebound)(cotangent, other)


def _first(x: Any) -> Any:
    return x[0]


def _whole(x: Any) -> Any:
    return x


ad.defbilinear(conv_p, functools.partial(_transposed, True), functools.partial(_transposed, False))


def _mapped(lhs: Any, rhs: Any, *, in_axes: tuple[int | None, int | None], **params: Any) -> Any:
    return jax.vmap(functools.partial(_stock_p.bind, **params), in_axes)(lhs, rhs)


def _batched(operands: Any, axes: Any, *, members: bool, wanted: str | None, **params: Any) -> Any:
    lhs, rhs = (
        operand if axis is None else jax.numpy.moveaxis(operand, axis, 0)
        for operand, axis in zip(operands, axes, strict=True)
    )
    in_axes = tuple(None if axis is None else 0 for axis in axes)
    if None not in in_axes and not members:
        return conv_p.bind(lhs, rhs, members=True, wanted=wanted, **params), 0

    def one_more(lhs: Any, rhs: Any) -> Any:
        # One convolution still: more examples, or more output channels.
        return rebind(_mapped, lhs, rhs, wanted=wanted, in_axes=in_axes, **params)

    if not members:
        return one_more(lhs, rhs), 0
    if None not in in_axes:
        sizes = lhs.shape[:2]
        lhs, rhs = (lax.collapse(operand, 0, 2) for operand in (lhs, rhs))
        result = conv_p.bind(lhs, rhs, members=True, wanted=wanted, **params)
        return result.reshape(*sizes, *result.shape[1:]), 0
    member_axes = tuple(0 if axis is None else 1 for axis in in_axes)
    return jax.vmap(one_more, member_axes, out_axes=1)(lhs, rhs), 0


batching.primitive_batchers[conv_p] = _batched


def _lowering(platform: str) -> Callable[..., Any]:
    def lower(ctx: Any, *operands: Any, **params: Any) -> Any:
        module = ctx.module_context
        # XLA can neither ship a call of a compiled kernel nor split it over devices.
        divided = getattr(module.axis_context, "num_devices", 1) > 1
        portable = module.lowering_parameters.for_export or divided
        run = functools.partial(compute, platform=platform, portable=portable)
        return mlir.lower_fun(run, multiple_results=False)(ctx, *operands, **params)

    return lower


mlir.register_lowering(conv_p, _lowering("cpu"), platform="cpu")
# Any other platform gets what the stock primitive does there.
mlir.register_lowering(conv_p, _lowering("accelerators"))
