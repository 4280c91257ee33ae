"""Which task a data set and a recipe ask for."""

from __future__ import annotations

import numpy as np

from cnn_jax.data import Dataset, Split
from cnn_jax.data.hierarchy import parents
from cnn_jax.errors import RecipeError
from cnn_jax.evaluation.recognition import check_people
from cnn_jax.recipe import LossRecipe, Recipe
from cnn_jax.training.margin_softmax import MarginSoftmax
from cnn_jax.training.metric_learning import ContrastivePairs, SupervisedContrastive, Triplet
from cnn_jax.training.recognition import Learned, Recognition, subjects_of
from cnn_jax.training.segmentation import Segmentation
from cnn_jax.training.task import Classification, MultiLabel, Task

_OF_PAIRS = {
    "contrastive": ContrastivePairs(),
    "triplet-all": Triplet(mining="all"),
    "triplet-hard": Triplet(mining="hard"),
    "triplet-semi-hard": Triplet(mining="semi-hard"),
    "supervised-contrastive": SupervisedContrastive(),
}


def check_segmentation(recipe: Recipe, dataset: Dataset) -> None:
    """Raise `RecipeError` for what only classification, or only segmentation, has."""
    if not dataset.regions:
        for name in ("patch", "copy_paste", "defects"):
            if getattr(recipe.augment, name):
                raise RecipeError(f"augment.{name} is for segmentation (data.masks): set it to 0")
        return
    if recipe.augment.defects and len(dataset.regions) > 2:
        raise RecipeError(
            f"augment.defects are of one kind, and {dataset.name!r} has {len(dataset.regions) - 1} "
            "regions: set it to 0"
        )
    masks = dataset.splits["train"].masks
    if masks is not None and not masks.any() and not recipe.augment.defects:
        raise RecipeError(
            f"nothing is marked in the {len(masks)} training images of {dataset.name!r}: a network "
            "would learn to mark nothing. Put marked images into the train part, or let "
            "augment.defects make some"
        )
    loss, augment, train = recipe.loss, recipe.augment, recipe.train
    for name, given in (
        ("loss.class_weights", loss.class_weights != "none"),
        ("loss.focal", loss.focal),
        ("loss.logit_adjustment", loss.logit_adjustment),
        ("loss.hierarchy", loss.hierarchy),
        ("loss.margin", loss.margin != "none"),
        ("augment.mixup", augment.mixup),
        ("augment.cutmix", augment.cutmix),
        ("train.views", train.views != "one"),
    ):
        if given:
            raise RecipeError(f"{name} is for classification: leave it out where masks are learned")


def check_sampling(recipe: Recipe, dataset: Dataset) -> None:
    """Raise `RecipeError` for an order of the training images that these data cannot have."""
    train, split = recipe.train, dataset.splits["train"]
    if train.sampling == "uniform":
        return
    if dataset.kinds["label"] != "class":
        raise RecipeError(
            f"train.sampling is {train.sampling}, but that needs one class for each image: "
            f"{dataset.name!r} has {dataset.kinds['label']} labels"
        )
    if recipe.loss.logit_adjustment:
        raise RecipeError(
            f"train.sampling {train.sampling} and loss.logit_adjustment both make up for rare "
            "classes: choose one"
        )
    if train.sampling == "balanced":
        return
    each, count = train.images_per_identity, len(np.unique(split.targets["label"]))
    size, most = min(train.batch_size, len(split)), min(count, len(split) // each)
    if size % each or not 2 <= size // each <= count:
        remedy = f"set train.batch_size to a multiple of {each}, {2 * each} to {most * each}"
        raise RecipeError(
            f"batches of {size} images, {each} of each class (train.images_per_identity), cannot "
            f"be made of {len(split)} images of {count} classes: "
            + (remedy if most >= 2 else "choose fewer of each class")
        )


def make_task(loss: LossRecipe, dataset: Dataset, train: Split, *, unseen: bool = False) -> Task:
    """The task that masks, or else the kind of the labels, ask for.

    Where the people (classes) of the other parts are `unseen` in training it is `Recognition`,
    whatever is learned; `loss.pairs` are learned nowhere else.

    Raises:
      DataError: the data have no such hierarchy.
      EvaluationError: there are too few people or images to judge that by.
      RecipeError: the class weights do not fit, logits are to be adjusted as well, there are
        several labels and a margin, or there are no pairs.
    """
    if dataset.regions:
        return Segmentation(dataset.regions, loss.dice)
    if not unseen:
        return _of_classes(loss, dataset, train)
    pairs = loss.pairs != "none"
    learned = _of_pairs(loss, train) if pairs else _of_classes(loss, dataset, train)
    for part in ("validation", "test"):
        check_people(subjects_of(dataset, dataset.splits[part]), part)
    return Recognition(learned)


def _of_classes(loss: LossRecipe, dataset: Dataset, train: Split) -> Task:
    """What is learned of labels."""
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
    if several and loss.margin != "none":
        raise RecipeError(
            "loss.margin is for one class an image, and these have several labels: set it to none"
        )
    if several:
        if loss.hierarchy:
            raise RecipeError(
                "loss.hierarchy is for one class an image, and these have several labels: leave it "
                "out"
            )
        return MultiLabel(k, weights, focal=loss.focal > 0, log_priors=priors)
    levels = tuple(_numbered(parents(dataset, name)) for name in loss.hierarchy)
    task = Classification(k, weights, focal=loss.focal > 0, log_priors=priors, levels=levels)
    if loss.margin == "none":
        return task
    return MarginSoftmax(task, loss.margin, loss.scale, loss.straight_through)


def _numbered(names: tuple[str, ...]) -> tuple[int, ...]:
    """The number of each name, in the order in which they come."""
    order = list(dict.fromkeys(names))
    return tuple(order.index(name) for name in names)


def _of_pairs(loss: LossRecipe, train: Split) -> Learned:
    """What is learned of images of one person, and of two."""
    if len(np.unique(train.targets["label"])) == len(train):
        raise RecipeError(
            "loss.pairs learns from images of one person, and nobody has two to learn from: take a "
            "larger data.shots, or set loss.pairs to none"
        )
    return _OF_PAIRS[loss.pairs]


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
