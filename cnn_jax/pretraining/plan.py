"""From a recipe, images and an objective to the parts of a pretraining."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax import models, nn
from cnn_jax.assembly import Assembly, compiler_options_of, make_augment, train_step
from cnn_jax.augment import Augment
from cnn_jax.classifier import build_model
from cnn_jax.data import Dataset
from cnn_jax.errors import DataError, RecipeError
from cnn_jax.models.autoencoder import Autoencoder
from cnn_jax.pretraining.validation import LabelFree, validation_of
from cnn_jax.recipe import Recipe
from cnn_jax.shapes import check_remat, check_signature, state_for, variables_for
from cnn_jax.training.devices import place
from cnn_jax.training.feed import Feed
from cnn_jax.training.optimizers import Optimizer
from cnn_jax.training.preprocess import fit_preprocess
from cnn_jax.training.selfsupervised import Contrastive, CutPaste, Reconstruction, Rotation
from cnn_jax.training.state import Batch, PyTree, State, purpose_key
from cnn_jax.training.step import LinenApply, make_run_chunk, over_batches
from cnn_jax.training.synthetic import Synthetic

Objective = Literal["rotation", "cutpaste", "contrastive", "reconstruction", "synthetic"]

_PROJECTION = 64  # numbers of what contrastive learning compares


def assemble(
    recipe: Recipe, dataset: Dataset, objective: Objective, model: nn.Module | None
) -> Assembly:
    """The parts of a pretraining; its `eval_step` gives loss, weight and accuracy of examples."""
    _check_recipe(recipe, objective)
    for part in ("train", "validation"):
        if part not in dataset.splits or not len(dataset.splits[part]):
            raise DataError(f"data set {dataset.name!r} has no {part} part")
    image_shape = dataset.image_shape
    augment = make_augment(recipe.augment, image_shape)
    task = _task(objective, augment)
    if isinstance(task, Contrastive):
        _check_pairs(recipe, dataset, augment)
        augment = Augment()  # the views have it
    if model is None:
        model = model_of(recipe, task.num_outputs, image_shape, objective)
    check_signature(model)
    placement = place(recipe.train.devices)
    preprocess = fit_preprocess(dataset)
    feeds = {
        part: Feed(
            dataset.splits[part],
            min(size, len(dataset.splits[part])),
            placement,
            memory_limit=recipe.train.memory_limit,
            parts=recipe.train.accumulate if part == "train" else 1,
        )
        for part, size in (
            ("train", recipe.train.batch_size),
            ("validation", recipe.train.eval_batch_size),
        )
    }
    apply = LinenApply(model)
    key = purpose_key(jax.random.key(recipe.seed), "validation")
    evaluate = validation_of(apply, task, preprocess, key)
    template, optimizer = _abstract(recipe, model, evaluate, dataset)
    step = train_step(recipe, model, task, optimizer, augment, preprocess, feeds["train"])
    options = compiler_options_of(recipe)
    eval_step = jax.jit(over_batches(evaluate))
    return Assembly(
        recipe=recipe,
        dataset=dataset,
        model=model,
        task=task,
        preprocess=preprocess,
        placement=placement,
        feeds=feeds,
        apply=apply,
        step=step,
        run_chunk=make_run_chunk(step, options),
        eval_step=eval_step,
        final_step=eval_step,
        template=template,
        optimizer=optimizer,
        compiler_options=options,
    )


def _task(objective: Objective, augment: Augment) -> LabelFree:
    if objective == "rotation":
        return Rotation()
    if objective == "cutpaste":
        return CutPaste()
    if objective == "contrastive":
        return Contrastive(augment, num_outputs=_PROJECTION)
    return Synthetic() if objective == "synthetic" else Reconstruction()


def model_of(
    recipe: Recipe, outputs: int, image_shape: tuple[int, ...], objective: str | None
) -> nn.Module:
    """The module a recipe names, with so many logits, or the one that an objective needs.

    That is an autoencoder to reconstruct, and to find defects a U-Net, unless the recipe names
    another network that answers for every pixel.
    """
    if objective == "reconstruction":
        return Autoencoder(dtype=jnp.dtype(recipe.train.dtype))
    name = recipe.model.name
    if objective == "synthetic" and not (name in models.names() and models.segments(name)):
        recipe = recipe.override({"model.name": "unet", "model.options": {}})
    return build_model(recipe, outputs, image_shape, "cnn_jax.pretraining.pretrain(")


def _check_recipe(recipe: Recipe, objective: Objective) -> None:
    """Raise `RecipeError` for what needs labels, or what makes the problem impossible."""
    if objective not in get_args(Objective):
        known = ", ".join(get_args(Objective))
        raise RecipeError(f"no objective {objective!r}: there are {known}")
    augment, loss, train = recipe.augment, recipe.loss, recipe.train
    for name, given in (
        ("augment.patch", augment.patch),
        ("augment.copy_paste", augment.copy_paste),
        ("augment.defects", augment.defects),
        ("augment.mixup", augment.mixup),
        ("augment.cutmix", augment.cutmix),
        ("loss.class_weights", loss.class_weights != "none"),
        ("loss.focal", loss.focal),
        ("loss.logit_adjustment", loss.logit_adjustment),
        ("loss.hierarchy", loss.hierarchy),
        ("loss.margin", loss.margin != "none"),
        ("loss.pairs", loss.pairs != "none"),
        ("train.sampling", train.sampling != "uniform"),
        ("train.views", train.views != "one"),
        ("train.sizes", train.sizes),
    ):
        if given:
            raise RecipeError(f"{name} is for labels or masks: leave it out of pretraining")
    if objective == "rotation":
        if augment.flip and augment.flip_vertical:
            raise RecipeError(
                "augment.flip and augment.flip_vertical together are a half turn, which rotation "
                "has to tell: leave one out"
            )
        if augment.rotate >= 45:
            raise RecipeError(
                f"augment.rotate is {augment.rotate}, but rotation has to tell quarter turns: "
                "stay below 45"
            )


def _check_pairs(recipe: Recipe, dataset: Dataset, views: Augment) -> None:
    """Raise unless there are two images to compare, and two views that differ."""
    details = ("padding", "crop_ratio", "patch_marked")  # of transforms that may be off
    if views == Augment(**{name: getattr(views, name) for name in details}):
        raise RecipeError(
            "augment changes nothing, so that the two views of an image would be one: ask for "
            "augment.crop, augment.brightness and others"
        )
    for name, size in (
        ("train.batch_size", recipe.train.batch_size),
        ("train.eval_batch_size", recipe.train.eval_batch_size),
    ):
        if size < 2:
            raise RecipeError(f"{name} is {size}, but contrastive learning compares images: take 2")
    for part in ("train", "validation"):
        if len(dataset.splits[part]) < 2:
            raise DataError(
                f"data set {dataset.name!r} has one {part} image, but contrastive learning "
                "compares two or more"
            )


def _abstract(
    recipe: Recipe,
    model: nn.Module,
    evaluate: Callable[[Mapping[str, PyTree], Batch, Batch], dict[str, jax.Array]],
    dataset: Dataset,
) -> tuple[State, Optimizer]:
    """The state's structure without arrays, and its optimizer; nothing is computed.

    Raises:
      DataError, ModelError: images, objective and model do not fit together.
      RecipeError: a pattern matches no parameter.
    """
    shape = dataset.image_shape
    batch = {
        "image": jax.ShapeDtypeStruct((2, *shape), np.float32),
        "index": jax.ShapeDtypeStruct((2,), np.int32),
        "valid": jax.ShapeDtypeStruct((2,), np.bool_),
    }
    variables, _ = variables_for(
        model, shape, lambda variables: jax.eval_shape(evaluate, variables, {}, batch)
    )
    if recipe.train.remat:
        check_remat(model, recipe.train.remat, variables, shape)
    return state_for(recipe, variables)
