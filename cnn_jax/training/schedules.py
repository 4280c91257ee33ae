"""Learning rates as pure functions of the step."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from cnn_jax.recipe import ScheduleRecipe


def learning_rate(
    recipe: ScheduleRecipe,
    hyper: Mapping[str, jax.Array],
    step: jax.Array,
    *,
    steps_per_epoch: int,
    epochs: int,
) -> jax.Array:
    """The learning rate of a step, float32.

    It rises linearly over `warmup_epochs`, the first step having 1 / (number of warm-up
    steps) of the peak, and then follows, with t from 0 to 1 over the rest:

      cosine     peak (f + (1 - f) (1 + cos(pi t)) / 2)   (Loshchilov and Hutter, 2017)
      linear     peak (1 - (1 - f) t)
      piecewise  peak drop^(milestones passed), milestones as fractions of all epochs
      constant   peak

    where f is `final_fraction`. The whole is multiplied by `learning_rate_scale`, which
    the loop lowers on a plateau when training runs until it converges.
    """
    now = step.astype(jnp.float32) / steps_per_epoch
    warmup = hyper["warmup_epochs"]
    rise = jnp.minimum(1.0, (now + 1 / steps_per_epoch) / jnp.maximum(warmup, 1e-9))
    t = jnp.clip((now - warmup) / jnp.maximum(epochs - warmup, 1e-9), 0.0, 1.0)
    final = hyper["final_fraction"]
    if recipe.name == "cosine":
        factor = final + (1 - final) * 0.5 * (1 + jnp.cos(jnp.pi * t))
    elif recipe.name == "linear":
        factor = 1 - (1 - final) * t
    elif recipe.name == "piecewise":
        passed = sum((now >= m * epochs).astype(jnp.float32) for m in recipe.milestones)
        factor = hyper["drop"] ** passed
    else:
        factor = jnp.ones_like(now)
    return hyper["learning_rate"] * hyper["learning_rate_scale"] * rise * factor


def hyper_of(recipe: ScheduleRecipe) -> dict[str, float]:
    """The scalars of the schedule that the step reads."""
    return {
        "warmup_epochs": recipe.warmup_epochs,
        "final_fraction": recipe.final_fraction,
        "drop": recipe.drop,
        "learning_rate_scale": 1.0,
    }
