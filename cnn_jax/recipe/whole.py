"""`Recipe`: all groups, TOML in and out, and its digest."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cnn_jax import fields
from cnn_jax.errors import RecipeError
from cnn_jax.recipe.limits import LIMITS
from cnn_jax.recipe.parts import (
    AugmentRecipe,
    DataRecipe,
    LossRecipe,
    ModelRecipe,
    OptimizerRecipe,
    ScheduleRecipe,
    TrainRecipe,
)


@dataclass(frozen=True)
class Recipe:
    """A whole run. See each part for its fields."""

    seed: int = 0
    data: DataRecipe = field(default_factory=DataRecipe)
    model: ModelRecipe = field(default_factory=ModelRecipe)
    augment: AugmentRecipe = field(default_factory=AugmentRecipe)
    loss: LossRecipe = field(default_factory=LossRecipe)
    optimizer: OptimizerRecipe = field(default_factory=OptimizerRecipe)
    schedule: ScheduleRecipe = field(default_factory=ScheduleRecipe)
    train: TrainRecipe = field(default_factory=TrainRecipe)

    def __post_init__(self) -> None:
        for path, accepts, rule in LIMITS:
            value = fields.get(self, path)
            if value is not None and not accepts(value):
                raise RecipeError(f"{path} must be {rule}, not {value!r}")
        if self.data.fold > max(self.data.folds, 1):
            raise RecipeError(
                f"data.fold is {self.data.fold}, but data.folds is {self.data.folds}: set how many "
                "folds there are, too"
            )
        if self.data.unseen_identities and self.data.folds:
            raise RecipeError(
                "data.unseen_identities and data.folds both choose the test part: set one to 0"
            )
        if self.data.unseen_identities and self.data.masks:
            raise RecipeError(
                "data.unseen_identities is for recognising people or products, and data.masks for "
                "marking pixels: leave one out"
            )
        if self.data.identities and not self.data.unseen_identities:
            raise RecipeError(
                "data.identities leaves classes out of training, which only makes sense where "
                "others are tested: set data.unseen_identities, too"
            )
        train = self.train
        if train.sampling == "identities" and train.batch_size % train.images_per_identity:
            raise RecipeError(
                f"train.batch_size is {train.batch_size}, which is no whole number of classes with "
                f"{train.images_per_identity} images each (train.images_per_identity): choose a "
                "multiple"
            )
        if train.sizes:
            _check_sizes(self)
        if self.loss.margin != "none":
            _check_margin(self)
        if self.loss.pairs != "none":
            _check_pairs(self)

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values; a field that is None is left out."""
        return fields.plain(self)

    def to_toml(self) -> str:
        """The recipe as TOML; `Recipe.from_toml` reads it back to an equal recipe."""
        import tomli_w

        return tomli_w.dumps(self.to_dict())

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """A recipe with these values; fields that are left out keep their defaults."""
        return cls().override(values)

    @classmethod
    def from_toml(cls, path: str | Path) -> Recipe:
        """Read a TOML file.

        Raises:
          RecipeError: the file cannot be read, is no TOML, or names an unknown field.
        """
        return cls().override(read_toml(path))

    def override(self, values: Mapping[str, Any]) -> Recipe:
        """A copy with some fields changed.

        Args:
          values: nested (`{"optimizer": {"learning_rate": 0.1}}`) or dotted
            (`{"optimizer.learning_rate": 0.1}`) names. Values are checked against the
            type of the field; text is read as that type where it can be.

        Raises:
          RecipeError: an unknown field (the nearest one is named) or a value that does
            not fit.
        """
        return fields.override(self, fields.nested(values))

    def digest(self) -> str:
        """sha256 (hex) of all values."""
        return digest_of(self.to_dict())


def _check_sizes(recipe: Recipe) -> None:
    """Raise `RecipeError` for what small images in the first epochs do not go with."""
    for name, given in (
        ("data.masks", recipe.data.masks),
        ("train.until = 'converged'", recipe.train.until == "converged"),
        ("train.patience", recipe.train.patience),  # small images would be judged by large ones
    ):
        if given:
            raise RecipeError(
                f"train.sizes is for a classification of fixed length, not for {name}: leave one "
                "out"
            )


def _check_margin(recipe: Recipe) -> None:
    """Raise `RecipeError` for images of two classes, or a size that the margin does not have.

    A size without a margin is left alone: a sweep may try both, with and without.
    """
    loss = recipe.loss
    if recipe.augment.mixup or recipe.augment.cutmix:
        raise RecipeError(
            "augment.mixup and augment.cutmix make images of two classes, and loss.margin needs "
            "one: set them to 0, or loss.margin to none"
        )
    if loss.margin_size is not None and loss.margin in ("combined", "magface"):
        named = "margins" if loss.margin == "combined" else "magface_margins"
        raise RecipeError(f"loss.margin_size is not of {loss.margin}: set loss.{named} instead")


def _check_pairs(recipe: Recipe) -> None:
    """Raise `RecipeError` for what a loss of pairs has no use for, or cannot be learned with."""
    loss, augment, train = recipe.loss, recipe.augment, recipe.train
    if not recipe.data.unseen_identities:
        raise RecipeError(
            "loss.pairs learns an embedding, not classes, and is judged by people (or products) "
            "never seen: set data.unseen_identities, too"
        )
    for name, given in (
        ("loss.margin", loss.margin != "none"),
        ("loss.class_weights", loss.class_weights != "none"),
        ("loss.label_smoothing", loss.label_smoothing),
        ("loss.focal", loss.focal),
        ("loss.logit_adjustment", loss.logit_adjustment),
        ("loss.hierarchy", loss.hierarchy),
        ("augment.mixup", augment.mixup),
        ("augment.cutmix", augment.cutmix),
    ):
        if given:
            raise RecipeError(
                f"{name} is for losses of classes, and loss.pairs compares images with each other: "
                "leave one out"
            )
    if loss.pair_margin is not None and loss.pairs == "supervised-contrastive":
        raise RecipeError(
            "loss.pair_margin is not of supervised-contrastive: set loss.pair_temperature instead"
        )
    if train.accumulate > 1:
        raise RecipeError(
            f"train.accumulate is {train.accumulate}, but loss.pairs compares all images of a "
            "batch with each other: set it to 1"
        )
    if train.sampling == "identities" and train.images_per_identity < 2:
        raise RecipeError(
            "train.images_per_identity is 1, but loss.pairs needs images of one person to "
            "compare: take 2 or more"
        )


def digest_of(values: Mapping[str, Any]) -> str:
    """sha256 (hex) of the plain values of a recipe.

    Of a recipe's file it is the digest that the recipe had when it was written, also when
    recipes have got more fields since.
    """
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def read_toml(path: str | Path) -> dict[str, Any]:
    """Values of a TOML file, unchecked.

    Raises:
      RecipeError: the file cannot be read or is no TOML.
    """
    try:
        return tomllib.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise RecipeError(f"cannot read recipe {str(path)!r}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"recipe {str(path)!r} is not TOML: {error}") from error
