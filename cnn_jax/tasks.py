"""Which task a data set and a recipe ask for."""

from __future__ import annotations

import numpy as np

from cnn_jax.data import Dataset, Split
from cnn_jax.errors import RecipeError
from cnn_jax.recipe import LossRecipe, Recipe
from cnn_jax.training.segmentation import Segmentation
from cnn_jax.training.task import Classification, MultiLabel, Task


def check_segmentation(recipe: Recipe, dataset: Dataset) -> None:
    """Raise `RecipeError` for what only classification, or only segmentation, has."""
    if not dataset.regions:
        if recipe.augment.patch:
            raise RecipeError("augment.patch is for segmentation (data.masks): set it to 0")
        return
    loss, augment, train = recipe.loss, recipe.augment, recipe.train
    for name, given in (
        ("loss.class_weights", loss.class_weights != "none"),
        ("loss.focal", loss.focal),
        ("loss.logit_adjustment", loss.logit_adjustment),
        ("augment.mixup", augment.mixup),
        ("augment.cutmix", augment.cutmix),
        ("train.views", train.views != "one"),
    ):
        if given:
            raise RecipeError(f"{name} is for classification: leave it out where masks are learned")


def make_task(loss: LossRecipe, dataset: Dataset, train: Split) -> Task:
    """The task that masks, or else the kind of the labels, ask for.

    Raises:
      RecipeError: the class weights do not fit, or logits are to be adjusted as well.
    """
    if dataset.regions:
        return Segmentation(dataset.regions, loss.dice)
    k = len(dataset.classes["label"])
    weights: tuple[float, ...] | None = None
    if loss.class_weights == "balanced":
        weights = _balanced(train.targets["label"], k)
    elif loss.class_weights != "none":
        weights = tuple(loss.class_weights)
        if len(weights) != k:
            raise RecipeError(f"loss.class_weights has {len(weights)} weights for {k} classes")
    several = dataset.kinds["label"] == "multilabel"
    priors: tuple[float, ...] | None = None
    if loss.logit_adjustment:
        if weights is not None:
            raise RecipeError(
                "loss.logit_adjustment and loss.class_weights both make up for rare classes: "
                "choose one"
            )
        priors = _log_priors(train.targets["label"], k, several=several)
    kind = MultiLabel if several else Classification
    return kind(k, weights, focal=loss.focal > 0, log_priors=priors)


def _log_priors(labels: np.ndarray, k: int, *, several: bool) -> tuple[float, ...]:
    """Logarithm of each class's share, or of each label's odds; half a count more for each.

    The half keeps classes without examples finite.
    """
    counts = np.bincount(labels, minlength=k) if labels.ndim == 1 else labels.sum(axis=0)
    counts = counts.astype(np.float64) + 0.5
    rest = len(labels) + 1 - counts if several else counts.sum()
    return tuple(np.log(counts / rest).tolist())


def _balanced(labels: np.ndarray, k: int) -> tuple[float, ...]:
    """n / (K n_k): every class has the same total weight, and the mean weight is 1."""
    if labels.ndim == 1:
        counts = np.bincount(labels, minlength=k).astype(np.float64)
    else:
        counts = labels.sum(axis=0, dtype=np.float64)
    return tuple((counts.sum() / (k * np.maximum(counts, 1))).tolist())
