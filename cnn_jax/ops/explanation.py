"""Which algorithm each convolution of a function gets, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr

from cnn_jax.ops.choice import choose
from cnn_jax.ops.geometry import Convolution, describe, words
from cnn_jax.ops.measured import key
from cnn_jax.ops.primitive import conv_p


@dataclass(frozen=True)
class Explained:
    """One kind of convolution in a function.

    Attributes:
      convolution: its shapes and parameters, in words.
      algorithm, reason: see `ops.choice.choose`.
      multiply_adds: of one of them.
      members: networks at once, each with a kernel of its own; 1 without `jax.vmap`.
      count: how many such convolutions the function holds (in a loop, how often it is written).
    """

    convolution: str
    algorithm: str
    reason: str
    multiply_adds: int
    members: int
    count: int


@dataclass(frozen=True)
class Explanation:
    """The convolutions of a function, in the order they first stand in it."""

    platform: str
    convolutions: tuple[Explained, ...]

    def __str__(self) -> str:
        if not self.convolutions:
            return "no convolution of cnn_jax.ops"
        lines = []
        for one in self.convolutions:
            times = f"{one.count} x " if one.count > 1 else ""
            members = f", {one.members} members" if one.members > 1 else ""
            lines.append(
                f"{times}{one.convolution}{members}: {2e-6 * one.multiply_adds:,.4g} MFLOP\n"
                f"    {one.algorithm}: {one.reason}"
            )
        return "\n".join(lines)


def explain(
    function: Callable[..., Any], *arguments: Any, platform: str | None = None
) -> Explanation:
    """Which algorithm each convolution of a function gets on a platform, and why.

    >>> print(ops.explain(jax.grad(loss), params, images))

    Args:
      function: anything that jax can trace, such as the gradient of a loss; not compiled.
      arguments: its arguments, or `jax.ShapeDtypeStruct`s in their place.
      platform: `cpu`, `cuda` or another; by default where jax runs now.
    """
    platform = platform or jax.devices()[0].platform
    found: dict[tuple[str, int], Explained] = {}
    for conv, members, wanted in convolutions_of(function, *arguments):
        choice = choose(conv, platform=platform, wanted=wanted)
        known = found.get((key(conv), members))
        found[key(conv), members] = Explained(
            convolution=words(conv),
            algorithm=choice.algorithm,
            reason=choice.reason,
            multiply_adds=conv.multiply_adds,
            members=members,
            count=1 if known is None else known.count + 1,
        )
    return Explanation(platform, tuple(found.values()))


def convolutions_of(
    function: Callable[..., Any], *arguments: Any
) -> Iterator[tuple[Convolution, int, str | None]]:
    """Each convolution of a function, its number of members, and the algorithm wanted for it."""
    # A new function, which jax has not traced before under another `use_algorithm`.
    jaxpr = jax.make_jaxpr(lambda *traced: function(*traced))(*arguments).jaxpr
    for equation in _convolutions(jaxpr):
        params = dict(equation.params)
        members, wanted = params.pop("members"), params.pop("wanted")
        lhs, rhs = (variable.aval for variable in equation.invars)
        size = lhs.shape[0] if members else 1
        if members:
            lhs, rhs = (jax.ShapeDtypeStruct(one.shape[1:], one.dtype) for one in (lhs, rhs))
        yield describe(lhs, rhs, params), size, wanted


def _convolutions(jaxpr: Jaxpr) -> Iterator[Any]:
    for equation in jaxpr.eqns:
        if equation.primitive is conv_p:
            yield equation
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                if isinstance(inner, ClosedJaxpr):
                    yield from _convolutions(inner.jaxpr)
                elif isinstance(inner, Jaxpr):
                    yield from _convolutions(inner)
