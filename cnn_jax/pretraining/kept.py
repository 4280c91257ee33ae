"""A network for its features as text and arrays, to be kept in a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from cnn_jax import exported
from cnn_jax.pretraining.plan import model_of
from cnn_jax.pretraining.trained import Pretrained
from cnn_jax.recipe import Recipe
from cnn_jax.training.preprocess import Preprocess


def described(network: Pretrained, recipe: Recipe) -> dict[str, Any]:
    """All of a network but its variables, for JSON.

    Args:
      network: whose model is one that a recipe can name, or an `Autoencoder`.
      recipe: which names it.
    """
    return {
        "recipe": recipe.to_dict(),
        "outputs": getattr(network.model, "num_classes", 0),  # an autoencoder has no logits
        "preprocess": asdict(network.preprocess),
        "objective": network.objective,
        "history": list(network.history),
    }


def flattened(network: Pretrained) -> dict[str, np.ndarray]:
    """Its variables by their paths, in C order."""
    return exported.flattened(network.variables)


def rebuilt(
    description: Mapping[str, Any],
    recipe: Recipe,
    image_shape: tuple[int, ...],
    variables: Mapping[str, np.ndarray],
) -> Pretrained:
    """The network that was described.

    Args:
      description: of `described`.
      recipe: the one in it.
      image_shape: (H, W, C) of its images.
      variables: of `flattened`.

    Raises:
      KeyError, TypeError, ValueError: the description is damaged.
      ModelError, RunError: its recipe names no model of ours.
    """
    return Pretrained(
        model=model_of(recipe, description["outputs"], image_shape, description["objective"]),
        variables=exported.unflattened(variables),
        preprocess=Preprocess.from_dict(description["preprocess"]),
        image_shape=image_shape,
        objective=description["objective"],
        history=tuple(map(dict, description["history"])),
    )
