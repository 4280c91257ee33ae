"""Classification by centres on the unit sphere, with a margin: the task, and its scalars."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp

from cnn_jax.errors import ModelError, RecipeError
from cnn_jax.evaluation import CalibrationPredictions, Estimate, Predictions
from cnn_jax.recipe import LossRecipe
from cnn_jax.training import margins
from cnn_jax.training.margins import Margin, margin_logits, norm_of
from cnn_jax.training.task import Batch, Classification, Hyper, embedding_of

MarginName = Literal["sphereface", "cosface", "arcface", "combined", "adaface", "magface"]

# What is published, where a recipe does not say.
_SIZES = {"sphereface": 1.35, "cosface": 0.35, "arcface": 0.5, "adaface": 0.4}


def hyper_of(recipe: LossRecipe) -> dict[str, float]:
    """The scalars that `MarginSoftmax` reads from the state; none without a margin."""
    if recipe.margin == "none":
        return {}
    if recipe.margin == "combined":
        return dict(zip(("margin_m1", "margin_m2", "margin_m3"), recipe.margins, strict=True))
    if recipe.margin == "magface":
        (shortest, longest), (least, most) = recipe.magface_norms, recipe.magface_margins
        return {
            "margin_shortest": shortest,
            "margin_longest": longest,
            "margin_least": least,
            "margin_most": most,
            "margin_regulariser": recipe.magface_regulariser,
        }
    size = _SIZES[recipe.margin] if recipe.margin_size is None else recipe.margin_size
    adaptive = {"margin_h": recipe.adaface_h} if recipe.margin == "adaface" else {}
    return {"margin_size": size, **adaptive}


@dataclass(frozen=True)
class MarginSoftmax:
    """Cross-entropy of s cosines, that of the right class less a margin: `margins.margin_logits`.

    What is predicted are the model's own logits, without a margin. With MagFace the loss of an
    example is cross-entropy + lambda g; see `margins.magface`.

    Attributes:
      softmax: what is done with the logits: weights of classes, smoothing, focal loss, priors.
      margin: which; its scalars are in `hyper`, see `hyper_of`.
      scale: s; that of the model's head, so that logits mean the same in training and after.
      straight_through: see `margins.margin_logits`.
    """

    softmax: Classification
    margin: MarginName
    scale: float = 64.0
    straight_through: bool = False

    def loss(
        self, outputs: Any, batch: Batch, hyper: Hyper, *, key: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Loss and weight of each example, float32 `[B]`.

        Raises:
          ModelError: the model gives no embedding and centres.
          RecipeError: images are mixed.
        """
        if "mix_label" in batch:
            raise RecipeError(
                "augment.mixup and augment.cutmix make images of two classes, and loss.margin "
                "needs one: set them to 0"
            )
        embedding, centres = embedding_of(outputs), _centres(outputs)
        valid = batch.get("valid", jnp.ones(len(embedding), bool))
        margin, extra = self._margin(embedding, valid, hyper)
        logits = margin_logits(
            embedding,
            centres,
            batch["label"],
            margin,
            scale=self.scale,
            straight_through=self.straight_through,
        )
        loss, weight = self.softmax.loss(logits, batch, hyper, key=key)
        return loss + extra, weight

    def correct(self, outputs: Any, batch: Batch) -> jax.Array:
        """1 where the nearest centre is that of the class."""
        return self.softmax.correct(outputs, batch)

    def predictions(self, outputs: Any) -> dict[str, jax.Array]:
        """The logits, without a margin."""
        return self.softmax.predictions(outputs)

    def score(self, predictions: CalibrationPredictions) -> dict[str, float]:
        """Mean cross-entropy (without a margin) and accuracy."""
        return self.softmax.score(predictions)

    def metrics(self, predictions: Predictions) -> dict[str, Estimate]:
        """See `evaluation.classification_metrics`."""
        return self.softmax.metrics(predictions)

    def _margin(
        self, embedding: jax.Array, valid: jax.Array, hyper: Hyper
    ) -> tuple[Margin, jax.Array]:
        """The margin, and what is added to the loss of each example."""
        nothing = jnp.zeros(len(embedding), jnp.float32)
        if self.margin == "adaface":
            norm, m, h = norm_of(embedding), hyper["margin_size"], hyper["margin_h"]
            return margins.adaface(norm, valid, m=m, h=h), nothing
        if self.margin == "magface":
            margin, regulariser = margins.magface(
                norm_of(embedding),
                norms=(hyper["margin_shortest"], hyper["margin_longest"]),
                margins=(hyper["margin_least"], hyper["margin_most"]),
            )
            return margin, hyper["margin_regulariser"] * regulariser
        if self.margin == "combined":
            return Margin(*(hyper[f"margin_m{n}"] for n in (1, 2, 3))), nothing
        kinds = {
            "sphereface": Margin.sphereface,
            "cosface": Margin.cosface,
            "arcface": Margin.arcface,
        }
        return kinds[self.margin](hyper["margin_size"]), nothing


def _centres(outputs: Any) -> jax.Array:
    """`centres` `[K, S, D]`."""
    found = outputs.get("centres") if isinstance(outputs, Mapping) else None
    if found is None:
        raise ModelError(
            "a margin needs a model that returns 'embedding' [B, D] and 'centres' [K, S, D]: end "
            "it in nn.CentreHead, or take a model with the option embedding_size"
        )
    return found
