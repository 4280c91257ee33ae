"""Programs of jax's own functions, traced once for the same types and settings.

Tracing a convolution takes half a millisecond, and each convolution of ours asks for several
traces: of the stock function that its arguments describe, of its shape, of its derivatives. A
jitted function keeps its traces, by types, mesh and settings, and finds one again in some
microseconds; so what is kept here is the jitted function.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr

MOST = 4096  # functions with their options
_TYPES = (jax.core.ShapedArray, jax.ShapeDtypeStruct)


def traced(function: Callable[..., Any], *operands: Any, **options: Any) -> ClosedJaxpr:
    """The program of `function(*operands, **options)`.

    Args:
      function: one that lives as long as its module does, for it is kept.
      operands: arrays or their types.
      options: what else it takes, hashable; lists are taken for tuples.
    """
    types = [
        operand if isinstance(operand, _TYPES) else jax.typeof(operand) for operand in operands
    ]
    items = tuple((name, _as_tuples(value)) for name, value in sorted(options.items()))
    try:
        jitted = _jitted(function, items)
    except TypeError:  # not hashable
        jitted = jax.jit(functools.partial(function, **options))
    return jitted.trace(*types).jaxpr


@functools.lru_cache(maxsize=MOST)
def _jitted(function: Callable[..., Any], options: tuple[tuple[str, Any], ...]) -> Any:
    return jax.jit(functools.partial(function, **dict(options)))


def _as_tuples(value: Any) -> Any:
    return tuple(map(_as_tuples, value)) if type(value) in (list, tuple) else value
