"""Recomputing instead of keeping: named submodules of any module under `jax.checkpoint`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
from flax import linen

from cnn_jax.errors import ModelError
from cnn_jax.nn.interception import intercept_calls


@contextmanager
def recompute(patterns: Sequence[str]) -> Iterator[None]:
    """Modules applied inside keep, of the submodules that match, only what goes in.

    Their insides are computed a second time in the backward pass (Chen et al. 2016,
    "Training deep nets with sublinear memory cost"): the outputs and gradients are the same,
    the memory is that of one such submodule and of the inputs of all. Of submodules that lie
    in one another the outermost counts. Models need no code for it. XLA's CPU backend merges
    the two computations again, so that nothing is gained there.

    Args:
      patterns: regular expressions that must match a whole path, such as
        `stage[0-9]+/block[0-9]+`.

    Raises:
      ModelError: no regular expression; or, at the end, one that matched no submodule.
    """
    try:
        compiled = {pattern: re.compile(pattern) for pattern in patterns}
    except re.error as error:
        raise ModelError(f"{error.pattern!r} is no regular expression: {error}") from error
    met: set[str] = set()
    paths: list[str] = []
    inside = False

    def around(
        call: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        module: linen.Module,
    ) -> Any:
        nonlocal inside
        path = "/".join(module.path)
        paths.append(path)
        matching = {p for p, expression in compiled.items() if expression.fullmatch(path)}
        met.update(matching)
        if inside or not matching:
            return call(*args, **kwargs)
        leaves, structure = jax.tree.flatten((args, kwargs))
        arrays = [k for k, leaf in enumerate(leaves) if isinstance(leaf, jax.Array)]

        def again(module: linen.Module, *values: jax.Array) -> Any:
            for k, value in zip(arrays, values, strict=True):
                leaves[k] = value
            inner_args, inner_kwargs = jax.tree.unflatten(structure, leaves)
            return module(*inner_args, **inner_kwargs)

        inside = True
        try:
            return linen.remat(again)(module, *(leaves[k] for k in arrays))
        finally:
            inside = False

    with intercept_calls(around):
        yield
    missing = sorted(set(patterns) - met)
    if missing:
        shown = ", ".join(dict.fromkeys(path for path in paths if path))
        raise ModelError(f"{missing[0]!r} matches no submodule; the paths are {shown}")
