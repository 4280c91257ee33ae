"""Which recipe a run has: bundled, from a file, or that of the data, with what was changed."""

from __future__ import annotations

import dataclasses
import os
import re
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from cnn_jax import fields
from cnn_jax.errors import RecipeError
from cnn_jax.recipe.parts import ModelRecipe
from cnn_jax.recipe.whole import Recipe, read_toml


def bundled() -> list[str]:
    """Names of the recipes that ship with the library."""
    folder = resources.files("cnn_jax") / "recipes"
    return sorted(
        p.name.removesuffix(".toml") for p in folder.iterdir() if p.name.endswith(".toml")
    )


def load(name_or_path: str) -> dict[str, Any]:
    """Values of a bundled recipe, or of a TOML file.

    Raises:
      RecipeError: there is neither.
    """
    if name_or_path in bundled():
        text = (resources.files("cnn_jax") / "recipes" / f"{name_or_path}.toml").read_text("utf-8")
        return tomllib.loads(text)
    if Path(name_or_path).suffix == ".toml" or Path(name_or_path).exists():
        return read_toml(name_or_path)
    raise RecipeError(
        f"no recipe called {name_or_path!r}{fields.nearest(name_or_path, bundled())}; "
        f"bundled are {', '.join(bundled())}, or name a .toml file"
    )


def for_data(source: str) -> Recipe:
    """The recipe for a data set: the bundled one of that name, else the defaults.

    A path counts by its last part, so `~/sets/mnist` gets the recipe for MNIST, as does
    `tfds:mnist:3.0.1`.
    """
    if source.startswith("tfds:"):
        path = re.split("[/:]", source.removeprefix("tfds:"))[0]
    else:
        path = source
    key = Path(path).name.lower().removesuffix(".npz").replace("-", "_")
    name = _RECIPE_OF.get(key, key)
    values = load(name) if name in bundled() else {}
    return Recipe().override(values).override({"data": {"source": source}})


# Shorter names of the fields that are changed most, in Python and on the command line.
SHORT_NAMES = {
    "data": "data.source",
    "data_dir": "data.root",
    "model": "model.name",
    "epochs": "train.epochs",
    "batch_size": "train.batch_size",
    "learning_rate": "optimizer.learning_rate",
    "seed": "seed",
    "until": "train.until",
    "duplicates": "data.duplicates",
    "group_near_duplicates": "data.group_near_duplicates",
}


def resolve(recipe: Recipe | str | os.PathLike[str] | None, overrides: Mapping[str, Any]) -> Recipe:
    """The recipe a run will have.

    Args:
      recipe: a recipe, the name of a bundled one or a TOML file; None takes the one for the
        data set.
      overrides: fields by dotted or short name. Another model than the recipe's starts
        from that model's own options.

    Raises:
      RecipeError: an unknown name or a value that does not fit.
    """
    dotted = {SHORT_NAMES.get(name, name): value for name, value in overrides.items()}
    if isinstance(recipe, Recipe):
        base = recipe
    elif recipe is not None:
        base = Recipe.from_dict(load(os.fspath(recipe)))
    else:
        base = for_data(str(dotted.get("data.source", Recipe().data.source)))
    if dotted.get("model.name", base.model.name) != base.model.name:
        base = dataclasses.replace(base, model=ModelRecipe())
    return base.override(dotted)


# Sets of the same kind share a recipe; nothing in it was tuned on these.
_RECIPE_OF = {
    "fashion_mnist": "mnist",
    "kmnist": "mnist",
    "cifar_10_batches_bin": "cifar10",
    "cifar_100_binary": "cifar10",
    "cifar100": "cifar10",
}
