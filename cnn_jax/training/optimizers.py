"""Optimizers as pure functions that read their scalars from `State.hyper`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flax.traverse_util
import jax
import optax

from cnn_jax.errors import RecipeError
from cnn_jax.fields import nearest
from cnn_jax.recipe import OptimizerRecipe

PyTree = Any


@dataclass(frozen=True)
class Optimizer:
    """SGD or AdamW with a decay mask; built from optax inside the step.

    optax transforms close over their scalars, so building them from traced ones costs
    nothing and leaves every scalar free to vary between the members of a population.

    Attributes:
      recipe: which optimizer; of its numbers only those that change the structure count.
      decayed: path -> whether weight decay applies, for every parameter.
    """

    recipe: OptimizerRecipe
    decayed: Mapping[str, bool]

    def init(self, params: PyTree) -> PyTree:
        """State of the optimizer for `params`."""
        zeros = dict.fromkeys(hyper_of(self.recipe), 0.5)
        return self._transform(zeros, 1.0).init(params)

    def update(
        self,
        grads: PyTree,
        opt_state: PyTree,
        params: PyTree,
        hyper: Mapping[str, jax.Array],
        learning_rate: jax.Array,
    ) -> tuple[PyTree, PyTree]:
        """New parameters and new optimizer state."""
        transform = self._transform(hyper, learning_rate)
        # optax takes its scalars for Python numbers and raises traced ones to an int power.
        with jax.numpy_dtype_promotion("standard"):
            updates, opt_state = transform.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    def _transform(
        self, hyper: Mapping[str, Any], learning_rate: Any
    ) -> optax.GradientTransformation:
        decay = optax.add_decayed_weights(hyper["weight_decay"], mask=self._mask)
        parts: list[optax.GradientTransformation] = []
        if self.recipe.clip_norm:
            parts.append(optax.clip_by_global_norm(hyper["clip_norm"]))
        if self.recipe.name == "sgd":
            trace = optax.trace(decay=hyper["momentum"], nesterov=self.recipe.nesterov)
            parts += [decay, trace] if self.recipe.momentum else [decay]
        else:
            adam = optax.scale_by_adam(hyper["momentum"], hyper["beta2"], hyper["epsilon"])
            parts += [adam, decay]
        return optax.chain(*parts, optax.scale(-learning_rate))

    def _mask(self, params: PyTree) -> PyTree:
        flat = flax.traverse_util.flatten_dict(params, sep="/")
        return flax.traverse_util.unflatten_dict({k: self.decayed[k] for k in flat}, sep="/")


def make_optimizer(recipe: OptimizerRecipe, params: PyTree) -> Optimizer:
    """The optimizer of a recipe for these parameters.

    Raises:
      RecipeError: a pattern of `decay_exclude` is no regular expression or matches no
        parameter (the defaults may match none: not every network has a scale).
    """
    paths = list(flax.traverse_util.flatten_dict(params, sep="/"))
    excluded: set[str] = set()
    for pattern in recipe.decay_exclude:
        try:
            matched = {path for path in paths if re.search(pattern, path)}
        except re.error as error:
            raise RecipeError(
                f"optimizer.decay_exclude: {pattern!r} is no regular expression: {error}"
            ) from error
        if not matched and pattern not in OptimizerRecipe().decay_exclude:
            raise RecipeError(
                f"optimizer.decay_exclude: {pattern!r} matches no parameter"
                f"{nearest(pattern, paths)}"
            )
        excluded |= matched
    return Optimizer(recipe, {path: path not in excluded for path in paths})


def hyper_of(recipe: OptimizerRecipe) -> dict[str, float]:
    """The scalars of the optimizer that the step reads."""
    return {
        "learning_rate": recipe.learning_rate,
        "momentum": recipe.momentum,
        "weight_decay": recipe.weight_decay,
        "beta2": recipe.beta2,
        "epsilon": recipe.epsilon,
        "clip_norm": recipe.clip_norm,
    }
