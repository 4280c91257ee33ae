"""Which algorithm computes a convolution, and why."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
from jax import lax

from cnn_jax.errors import ModelError
from cnn_jax.ops.algorithms import ALGORITHMS
from cnn_jax.ops.algorithms.members import each_member
from cnn_jax.ops.algorithms.rule import by_rule
from cnn_jax.ops.geometry import Convolution, describe
from cnn_jax.ops.measured import measured
from cnn_jax.ops.native.library import unavailable

VARIABLE = "CNN_JAX_CONVOLUTION"

_MEASURED = "measured to be the fastest on such a machine"

# Part of the key under which jax keeps what it compiled.
_wanted = jax.make_user_context(None)


@dataclass(frozen=True)
class Choice:
    """An algorithm, a name in `ALGORITHMS`, and the reason for it in words."""

    algorithm: str
    reason: str


def choose(
    conv: Convolution, *, platform: str, wanted: str | None = None, portable: bool = False
) -> Choice:
    """The algorithm for a convolution: a pure function of platform, shapes and dtype.

    On a CPU: the one asked for, if it can compute this convolution; else the one that was
    measured to be the fastest on this kind of machine (`cnn-jax bench tune`); else the one
    that arithmetic advises. Elsewhere the vendor's library.

    Args:
      platform: `cpu`, or any other where jax runs.
      wanted: see `use_algorithm`.
      portable: the program may run elsewhere (`jax.export`) or be split over devices, so that
        compiled kernels are left out.
    """
    if platform != "cpu":
        return Choice("stock", f"on {platform} convolution is left to the vendor's library")
    if not all(isinstance(length, int) for length in (*conv.lhs_shape, *conv.rhs_shape)):
        return Choice("stock", "a length is not known before it runs")
    if 0 in conv.out_shape or conv.multiply_adds == 0:
        return Choice("stock", "there is nothing to compute")
    native = not portable and unavailable() is None
    for name, reason in ((wanted, "it was asked for"), (measured(conv), _MEASURED)):
        if name is None or name not in ALGORITHMS or (name == "onednn" and not native):
            continue
        if ALGORITHMS[name].fits(conv):
            return Choice(name, reason)
    return Choice(*by_rule(conv, native=native))


def compute(
    lhs: jax.Array,
    rhs: jax.Array,
    *,
    platform: str,
    members: bool,
    wanted: str | None,
    portable: bool,
    **params: Any,
) -> jax.Array:
    """The convolution, or one for each member along the leading axes, on a platform."""
    if platform != "cpu":
        stock = functools.partial(lax.conv_general_dilated_p.bind, **params)
        return (jax.vmap(stock) if members else stock)(lhs, rhs)

    def one(lhs: jax.Array, rhs: jax.Array) -> jax.Array:
        conv = describe(lhs, rhs, params)
        choice = choose(conv, platform=platform, wanted=wanted, portable=portable)
        return ALGORITHMS[choice.algorithm].apply(conv, lhs, rhs)

    return each_member(lhs, rhs, one) if members else one(lhs, rhs)


@contextlib.contextmanager
def use_algorithm(name: str) -> Iterator[None]:
    """Within the block, use one algorithm for every convolution that it can compute.

    For measuring and for finding faults; results differ by rounding alone. A function that
    was compiled outside the block is compiled anew within. The environment variable
    `CNN_JAX_CONVOLUTION` does the same for a whole process; set it before anything is
    compiled.

    Args:
      name: one of `ops.ALGORITHMS`; `stock` is what jax does.

    Raises:
      ModelError: there is no such algorithm.
    """
    with _wanted(_known(name, "use_algorithm")):
        yield


def wanted_here() -> str | None:
    """What `use_algorithm` or the environment asks for, or None.

    Raises:
      ModelError: the environment asks for an algorithm that there is not.
    """
    if (name := _wanted.value) is not None:
        return str(name)
    if name := os.environ.get(VARIABLE):
        return _known(name, f"${VARIABLE}")
    return None


def _known(name: str, where: str) -> str:
    if name not in ALGORITHMS:
        raise ModelError(f"{where}: no algorithm {name!r}; there are {', '.join(ALGORITHMS)}")
    return name
