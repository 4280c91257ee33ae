"""Maps of a run's images by one method, and what its network answers for them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax import explain, nn
from cnn_jax.errors import ModelError, RunError
from cnn_jax.explain.answers import logits_of

if TYPE_CHECKING:
    from cnn_jax.run import Run

_AT_ONCE = 16  # images that are explained in one call; fixed, so that it compiles once


def maps_of(
    run: Run,
    method: str,
    variables: Mapping[str, Any],
    pixels: np.ndarray,
    target: np.ndarray,
    *,
    seed: int = 0,
) -> np.ndarray:
    """float32 `[N, H, W]`: maps of images as they are kept `[N, H, W, C]`, of classes `[N]`."""
    found = []
    preprocess = run.classifier.preprocess
    for start in range(0, len(pixels), _AT_ONCE):
        batch, classes = pixels[start : start + _AT_ONCE], target[start : start + _AT_ONCE]
        short = _AT_ONCE - len(batch) if start else 0
        if short:
            batch = np.concatenate([batch, batch[:1].repeat(short, axis=0)])
            classes = np.concatenate([classes, classes[:1].repeat(short)])
        x, of = preprocess(jnp.asarray(batch)), jnp.asarray(classes, jnp.int32)
        maps = _maps(run.model, method, variables, x, of, jax.random.key(seed))
        found.append(np.asarray(maps, np.float32)[: len(batch) - short])
    return np.concatenate(found)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _maps(
    model: nn.Module, method: str, variables: Any, x: jax.Array, target: jax.Array, key: jax.Array
) -> jax.Array:
    return explain.method(method).of(model, variables, x, target, key)


def logits(run: Run, x: np.ndarray) -> np.ndarray:
    """float64 `[N, K]`, of images as the network sees them."""
    model, variables = run.model, run.variables
    found = [
        np.asarray(_answers(model, variables, jnp.asarray(x[i : i + 64], jnp.float32)), np.float64)
        for i in range(0, len(x), 64)
    ]
    return np.concatenate(found)


@functools.partial(jax.jit, static_argnums=0)
def _answers(model: nn.Module, variables: Any, x: jax.Array) -> jax.Array:
    return logits_of(model, variables)(x)


def class_number(run: Run, name: str) -> int:
    """Of a class by its name; ModelError where there is none of it."""
    classes = run.classifier.classes
    if name not in classes:
        raise ModelError(f"no class {name!r}: choose one of {', '.join(classes)}")
    return classes.index(name)


def check_explainable(run: Run) -> None:
    """Raise RunError where a run's answers are not classes of images, or it has not ended."""
    if run.regions or run.recognises or run.info["data"]["kind"] != "class":
        raise RunError(f"{run.shown!r} does not tell classes of images apart: name a run that does")
    run.check_ended()
    if len(run.info["data"]["image_shape"]) != 3:
        raise RunError(f"the images of {run.shown!r} are volumes, not [H, W, C]")
