"""Optimizers as pure functions that read their scalars from `State.hyper`."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import flax.traverse_util
import jax
import optax

from cnn_jax.errors import RecipeError
from cnn_jax.fields import nearest
from cnn_jax.recipe import OptimizerRecipe
from cnn_jax.training.muon import muon

PyTree = Any


@dataclass(frozen=True)
class Optimizer:
    """SGD, AdamW, LARS or Muon with a decay mask; built from optax inside the step.

    optax transforms close over their scalars, so building them from traced ones costs
    nothing and leaves every scalar free to vary between the members of a population.

    Attributes:
      recipe: which optimizer; of its numbers only those that change the structure count.
      decayed: paths of the parameters to which weight decay (and LARS's trust ratio) applies.
      muon: paths of those that Muon moves, where it is asked for.
    """

    recipe: OptimizerRecipe
    decayed: frozenset[str]
    muon: frozenset[str]

    def init(self, params: PyTree) -> PyTree:
        """State of the optimizer for `params`."""
        # The structure does not depend on the scalars.
        scalars = dict.fromkeys(hyper_of(self.recipe), 0.5)
        return self._transform(scalars, 1.0).init(params)

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
        parts: list[optax.GradientTransformation] = []
        if self.recipe.clip_norm:
            parts.append(optax.clip_by_global_norm(hyper["clip_norm"]))
        if self.recipe.name == "muon":
            # Both rates follow one schedule, each from its own peak.
            other = learning_rate / hyper["learning_rate"] * hyper["other_learning_rate"]
            kernels = muon(
                learning_rate,
                momentum=hyper["momentum"],
                nesterov=self.recipe.nesterov,
                steps=self.recipe.muon_steps,
                project=self.recipe.muon_project,
                weight_decay=hyper["weight_decay"],
                decayed=self._tree(self.decayed),
            )
            rules: dict[Hashable, optax.GradientTransformation] = {
                True: kernels,
                False: optax.chain(*self._sgd(hyper, other)),
            }
            return optax.chain(*parts, optax.partition(rules, self._tree(self.muon)))
        if self.recipe.name == "adamw":
            adam = optax.scale_by_adam(hyper["momentum"], hyper["beta2"], hyper["epsilon"])
            return optax.chain(*parts, adam, self._decay(hyper), optax.scale(-learning_rate))
        return optax.chain(*parts, *self._sgd(hyper, learning_rate))

    def _sgd(self, hyper: Mapping[str, Any], rate: Any) -> list[optax.GradientTransformation]:
        """SGD as in PyTorch, or LARS: the same with a trust ratio for each kernel."""
        trace = optax.trace(decay=hyper["momentum"], nesterov=self.recipe.nesterov)
        momentum = [trace] if self.recipe.momentum else []
        if self.recipe.name == "lars":
            ratio = optax.scale_by_trust_ratio(trust_coefficient=hyper["trust_coefficient"])
            masked = optax.masked(ratio, self._tree(self.decayed))
            # The rate goes into the momentum, as published: it may change between steps.
            return [self._decay(hyper), masked, optax.scale(-rate), *momentum]
        return [self._decay(hyper), *momentum, optax.scale(-rate)]

    def _decay(self, hyper: Mapping[str, Any]) -> optax.GradientTransformation:
        return optax.add_decayed_weights(hyper["weight_decay"], mask=self._tree(self.decayed))

    def _tree(self, chosen: frozenset[str]) -> Callable[[PyTree], PyTree]:
        """Of parameters, the tree of which are chosen; what optax has masked stays masked."""

        def tree(params: PyTree) -> PyTree:
            flat = flax.traverse_util.flatten_dict(params, sep="/")
            values = {
                path: leaf if isinstance(leaf, optax.MaskedNode) else path in chosen
                for path, leaf in flat.items()
            }
            return flax.traverse_util.unflatten_dict(values, sep="/")

        return tree


def make_optimizer(recipe: OptimizerRecipe, params: PyTree) -> Optimizer:
    """The optimizer of a recipe for these parameters.

    Raises:
      RecipeError: a pattern of `decay_exclude` or `muon_exclude` is no regular expression or
        matches no parameter (the defaults may match none: not every network has a scale);
        or Muon is asked for and there is no kernel of a convolution for it.
    """
    leaves = flax.traverse_util.flatten_dict(params, sep="/")
    paths = list(leaves)
    excluded = _matched("decay_exclude", recipe.decay_exclude, paths)
    spared = _matched("muon_exclude", recipe.muon_exclude, paths)
    kernels = {path for path, leaf in leaves.items() if leaf.ndim >= 3} - spared
    if recipe.name == "muon" and not kernels:
        raise RecipeError(
            "optimizer.name is muon, but the network has no kernel of a convolution left for "
            "it: choose sgd or adamw"
        )
    return Optimizer(recipe, decayed=frozenset(paths) - excluded, muon=frozenset(kernels))


def _matched(field: str, patterns: Sequence[str], paths: Sequence[str]) -> set[str]:
    """The paths in which one of the patterns of a field is found."""
    found: set[str] = set()
    for pattern in patterns:
        try:
            matched = {path for path in paths if re.search(pattern, path)}
        except re.error as error:
            raise RecipeError(
                f"optimizer.{field}: {pattern!r} is no regular expression: {error}"
            ) from error
        if not matched and pattern not in getattr(OptimizerRecipe(), field):
            raise RecipeError(
                f"optimizer.{field}: {pattern!r} matches no parameter{nearest(pattern, paths)}"
            )
        found |= matched
    return found


def hyper_of(recipe: OptimizerRecipe) -> dict[str, float]:
    """The scalars of the optimizer that the step reads.

    Those of one kind of optimizer are there for that one only: the state of a run that was
    saved before the others existed can still be read.
    """
    own = {
        "lars": {"trust_coefficient": recipe.trust_coefficient},
        "muon": {"other_learning_rate": recipe.other_learning_rate},
    }
    return {
        "learning_rate": recipe.learning_rate,
        "momentum": recipe.momentum,
        "weight_decay": recipe.weight_decay,
        "beta2": recipe.beta2,
        "epsilon": recipe.epsilon,
        "clip_norm": recipe.clip_norm,
        **own.get(recipe.name, {}),
        **({"sam": recipe.sam} if recipe.sam else {}),
    }
