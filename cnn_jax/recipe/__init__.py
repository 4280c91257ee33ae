"""The frozen description of a run: plain values, TOML in and out.

A recipe is the whole of what a person chooses. Everything else about a run (class names,
image shape, digests, versions) follows from it and from the data, and is recorded.
"""

from cnn_jax.recipe.choose import SHORT_NAMES, bundled, for_data, load, resolve
from cnn_jax.recipe.parts import (
    AugmentRecipe,
    DataRecipe,
    LossRecipe,
    ModelRecipe,
    OptimizerRecipe,
    ScheduleRecipe,
    TrainRecipe,
)
from cnn_jax.recipe.whole import Recipe, digest_of, read_toml

__all__ = [
    "SHORT_NAMES",
    "AugmentRecipe",
    "DataRecipe",
    "LossRecipe",
    "ModelRecipe",
    "OptimizerRecipe",
    "Recipe",
    "ScheduleRecipe",
    "TrainRecipe",
    "bundled",
    "digest_of",
    "for_data",
    "load",
    "read_toml",
    "resolve",
]
