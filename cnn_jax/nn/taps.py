"""`tap`: the outputs of named submodules of any Linen module, and gradients at them."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
from flax import linen, traverse_util
from flax.core.scope import union_filters

from cnn_jax.errors import ModelError
from cnn_jax.nn.interception import Around, intercept_calls

# A collection of Flax variables carries the outputs, so that remat and other lifted
# transformations hand them out of their own traces. No submodule can bear the second name.
_COLLECTION = "cnn_jax_taps"
_VARIABLE = "__call__"


def tap(
    model: linen.Module,
    variables: Mapping[str, Any],
    images: Any,
    at: Sequence[str] = (),
    add: Mapping[str, Any] | None = None,
    **call_kwargs: Any,
) -> tuple[Any, dict[str, Any]]:
    """Apply a module, and keep what some of its submodules gave.

    A path joins the names of the scopes with `/`, as in the tree of parameters:
    `stage3/block1`. A submodule that is called more than once gives `head`, then `head#1`,
    `head#2`. Only `__call__` is kept, not other methods.

    The gradient at a layer is the one with respect to `add`, at zero:

        def loss(change):
            logits, _ = nn.tap(model, variables, images, add={"stage3": change})
            return cross_entropy(logits)

        gradient = jax.grad(loss)(jnp.zeros_like(features))

    Args:
      model: any Linen module.
      variables: its variables.
      images: what it is called with.
      at: paths of the outputs to keep.
      add: path -> array of the output's shape, added to that output before it goes on; what
        `at` keeps includes it.
      **call_kwargs: passed to `model.apply`: `train`, `rngs`, `mutable`, ...

    Returns:
      What `model.apply` returns (with the updated collections if `mutable` was given), and
      path -> output for each path of `at`.

    Raises:
      ModelError: a path that does not exist, an array of `add` of another shape, or a module
        made by `flax.linen.jit`.
    """
    if isinstance(at, str):
        raise ModelError(f"at={at!r} must be a sequence of paths: at=({at!r},)")
    add = {} if add is None else add
    wanted = {*at, *add}
    outputs, found = _apply_and_collect(model, variables, images, add, wanted, call_kwargs)
    missing = sorted(wanted - set(found))
    if missing:
        raise _unknown_path(missing[0], tap_paths(model, variables, images, **call_kwargs))
    return outputs, {path: found[path] for path in at}


def tap_paths(
    model: linen.Module, variables: Mapping[str, Any], images: Any, **call_kwargs: Any
) -> dict[str, Any]:
    """Every path that `tap` knows, with the shape and dtype of its output.

    Nothing is computed. Submodules inside a lifted loop (`nn.scan`) are not listed: each of
    their outputs exists only within one turn.

    Args:
      model: any Linen module.
      variables: its variables, or their shapes.
      images: what it is called with, or its shape.
      **call_kwargs: passed to `model.apply`.

    Returns:
      path -> `jax.ShapeDtypeStruct` (or a tree of them), in the order of the variables.
    """

    def collect(variables: Any, images: Any) -> dict[str, Any]:
        return _apply_and_collect(model, variables, images, {}, None, call_kwargs)[1]

    return jax.eval_shape(collect, variables, images)


def _apply_and_collect(
    model: linen.Module,
    variables: Mapping[str, Any],
    images: Any,
    add: Mapping[str, Any],
    wanted: Collection[str] | None,
    call_kwargs: Mapping[str, Any],
) -> tuple[Any, dict[str, Any]]:
    """Outputs of the model, and path -> output of the wanted submodules (None: of all)."""
    mutable = call_kwargs.get("mutable", False)
    bases = None if wanted is None else {path.partition("#")[0] for path in wanted}
    with intercept_calls(_recorder(add, bases)):
        outputs, updates = model.apply(
            variables,
            images,
            **{**call_kwargs, "mutable": union_filters(mutable, [_COLLECTION])},
        )
    updates = dict(updates)
    collected = traverse_util.flatten_dict(updates.pop(_COLLECTION, {}))
    found = {
        _numbered("/".join(names[:-1]), call): output
        for names, calls in collected.items()
        for call, output in enumerate(calls)
    }
    return (outputs if mutable is False else (outputs, updates)), found


def _recorder(add: Mapping[str, Any], bases: Collection[str] | None) -> Around:
    """What goes around each call of a module: it adds to outputs and keeps them."""
    running: list[str] = []

    def record(
        call: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        module: linen.Module,
    ) -> Any:
        path = "/".join(module.path)
        # Modules that share a scope have one path: the outermost gives the output.
        if not path or path in running or (bases is not None and path not in bases):
            return call(*args, **kwargs)
        running.append(path)
        try:
            output = call(*args, **kwargs)
        finally:
            running.pop()
        numbered = _numbered(path, len(module.get_variable(_COLLECTION, _VARIABLE, ())))
        if numbered in add:
            output = _add(output, add[numbered], numbered)
        module.sow(_COLLECTION, _VARIABLE, output)
        return output

    return record


def _numbered(path: str, call: int) -> str:
    return f"{path}#{call}" if call else path


def _add(output: Any, change: Any, path: str) -> Any:
    shapes, expected = (
        jax.tree.map(lambda leaf: (tuple(leaf.shape), leaf.dtype), tree)
        for tree in (change, output)
    )
    if shapes != expected:
        raise ModelError(f"add[{path!r}] is {shapes}, but that output is {expected}")
    return jax.tree.map(lambda value, extra: value + extra, output, change)


def _unknown_path(path: str, known: Collection[str]) -> ModelError:
    near = difflib.get_close_matches(path, known, n=1, cutoff=0.0)
    if not near:
        return ModelError(f"no submodule {path!r}: the module has none")
    return ModelError(
        f"no submodule {path!r}; did you mean {near[0]!r}? The paths are {', '.join(known)}"
    )
