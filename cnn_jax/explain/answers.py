"""What every method here explains: how a network answers for one class of each image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax import nn
from cnn_jax.errors import ModelError

Answers = Callable[[jax.Array], jax.Array]  # `[N, H, W, C]` to `[N, K]`, or, of a class, to `[N]`


def working_dtype(image: jax.Array) -> Any:
    """What heat maps are added up and handed over in: float64 for float64, else float32."""
    return jnp.float64 if image.dtype == jnp.float64 else jnp.float32


def check_images(image: jax.Array, target: jax.Array) -> None:
    """Raise `ModelError` unless images are floating `[B, H, W, C]` and targets integers `[B]`."""
    if image.ndim != 4 or not jnp.issubdtype(image.dtype, jnp.floating):
        raise ModelError(
            f"images must be floating [B, H, W, C], not {image.dtype} {list(image.shape)}"
        )
    if target.shape != image.shape[:1] or not jnp.issubdtype(target.dtype, jnp.integer):
        raise ModelError(
            f"target must be an integer [B], the class of each of the {image.shape[0]} images, "
            f"not {target.dtype} {list(target.shape)}"
        )


def logits_of(model: nn.Module, variables: Mapping[str, Any]) -> Answers:
    """The logits of a model in evaluation, by themselves or out of the dict that it returns."""

    def logits(image: jax.Array) -> jax.Array:
        outputs: Any = model.apply(variables, image)
        found: jax.Array = outputs["logits"] if isinstance(outputs, Mapping) else outputs
        return found

    return logits


def chosen(values: jax.Array, target: jax.Array) -> jax.Array:
    """One of K values for each image, `[N, K]` to `[N]`.

    The targets are repeated where there are several times as many images. One that is no class
    is an error where it is known, and NaN, in the gradients too, where it is traced: left to
    itself the gradient would be 0, which looks like an answer.
    """
    if values.ndim != 2 or values.shape[0] % target.shape[0]:
        raise ModelError(
            f"the network gives {list(values.shape)}, not logits [B, K]: give a function that "
            "returns the logits alone"
        )
    classes = values.shape[1]
    if not isinstance(target, jax.core.Tracer):
        known = np.asarray(target)
        if known.size and not (known.min() >= 0 and known.max() < classes):
            raise ModelError(
                f"target {int(known[(known < 0) | (known >= classes)][0])} is no class: there are "
                f"{classes}, from 0 to {classes - 1}"
            )
    target = jnp.tile(target, values.shape[0] // target.shape[0])
    valid = (target >= 0) & (target < classes)
    picked = jnp.take_along_axis(values, jnp.where(valid, target, 0)[:, None], axis=1)[:, 0]
    return picked * jnp.where(valid, 1, jnp.nan).astype(values.dtype)


def answer_of(logits: Answers, image: jax.Array, target: jax.Array) -> Answers:
    """The logit of each image's class: `[N, H, W, C]`, N a multiple of B, to `[N]`.

    Raises:
      ModelError: images, targets or logits of another shape or kind, or a class that is none.
    """
    check_images(image, target)
    return lambda x: chosen(logits(x), target).astype(working_dtype(image))
