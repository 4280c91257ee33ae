"""The data that a recipe names: located, read, corrected and cleared of duplicates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from cnn_jax import data
from cnn_jax.data import Dataset
from cnn_jax.errors import DataError, MissingDataError
from cnn_jax.evaluation import Hierarchy
from cnn_jax.recipe import Recipe


def load_data(recipe: Recipe) -> Dataset:
    """The data set a recipe names, with all three parts, labelled as it says.

    Raises:
      DataError: it cannot be found or read; see `label_data`.
    """
    d = recipe.data
    if d.source.startswith("custom:"):
        raise DataError(f"this run was trained on arrays ({d.source}): give them as data=")
    dataset = data.load(
        d.source,
        data_dir=d.root,
        image_size=d.image_size,
        channels=d.channels,
        fit=d.fit,
        label=_column(d.label),
        path_column=_column(d.path_column),
        split_column=_column(d.split_column),
        group_column=_column(d.group_column),
        validation=d.validation,
        split_seed=d.split_seed,
        memory_limit=recipe.train.memory_limit,
        group_near_duplicates=d.group_near_duplicates,
        masks=d.masks,
        regions=d.regions,
        unreadable=d.unreadable,
    )
    return label_data(recipe, dataset)


def load_again(recipe: Recipe) -> Dataset:
    """`load_data` of a run's own recipe, whose data may have been moved since.

    Raises:
      DataError: see `load_data`; where nothing is left, says where the data were.
    """
    try:
        return load_data(recipe)
    except MissingDataError as error:
        place = str(Path(recipe.data.root or ".") / recipe.data.source)
        raise DataError(
            f"the data of this run are no longer at {place!r}: give --data PATH"
        ) from error


def data_again(recipe: Recipe, given: Dataset | str | None) -> tuple[Recipe, Dataset]:
    """Recipe and data of something that is resumed.

    Args:
      recipe: of what was begun.
      given: the data set, where it was the user's own; or the path to which it has moved.

    Raises:
      DataError: see `load_again`.
    """
    if isinstance(given, Dataset):
        return recipe, given
    if given is None:
        return recipe, load_again(recipe)
    recipe = recipe.override({"data.source": given, "data.root": None})
    return recipe, load_data(recipe)


def original_files(recipe: Recipe, ids: Collection[str]) -> dict[str, Path]:
    """Id -> the file that an example's image was read from, where it is a file of its own.

    Raises:
      DataError: the data cannot be found or read.
    """
    d = recipe.data
    if d.source.startswith("custom:"):
        return {}
    return data.original_files(
        d.source,
        ids,
        data_dir=d.root,
        label=_column(d.label),
        path_column=_column(d.path_column),
        split_column=_column(d.split_column),
        group_column=_column(d.group_column),
    )


def count_own_images(
    recipe: Recipe, ids: Mapping[str, Collection[str]], images: Sequence[Path]
) -> dict[str, int]:
    """How many of some image files are a run's own, by part; of copies elsewhere nothing is known.

    Args:
      recipe: names the data.
      ids: of the examples of each part, as the run recorded them.
      images: paths; links are followed.
    """
    try:
        files = original_files(recipe, {id_ for names in ids.values() for id_ in names})
    except DataError:  # the data have been moved
        return {}
    part_of = {
        files[id_].resolve(): part for part, names in ids.items() for id_ in names if id_ in files
    }
    found = Counter(part_of.get(image.resolve()) for image in images)
    return {part: found[part] for part in ids if found[part]}


def label_data(recipe: Recipe, dataset: Dataset) -> Dataset:
    """The data set with its labels corrected, its classes grouped, and its regions named by them.

    Raises:
      DataError: the corrections cannot be read or are of other data; see `data.group_classes`
        and `data.regions_by_class`.
      EvaluationError: the hierarchy cannot be read or is none; see `Hierarchy`.
    """
    labelled = _with_levels(recipe, _corrected(recipe, dataset))
    return data.regions_by_class(labelled) if recipe.data.regions_by_class else labelled


def group_own_classes(recipe: Recipe, dataset: Dataset) -> Dataset:
    """A data set of the caller's own, given again, with its classes grouped as the recipe says.

    Its digest is the same with and without; one that was loaded by its name or path has them.
    """
    return _with_levels(recipe, dataset) if recipe.data.source.startswith("custom:") else dataset


def _with_levels(recipe: Recipe, dataset: Dataset) -> Dataset:
    if recipe.data.hierarchy is None:
        return dataset
    found = Hierarchy.read(recipe.data.hierarchy, dataset.classes["label"])
    return data.group_classes(dataset, found.levels, found.ancestors)


def _corrected(recipe: Recipe, dataset: Dataset) -> Dataset:
    """The data set with the labels that the recipe's corrections replace."""
    path = recipe.data.corrections
    if path is None:
        return dataset
    corrections = data.read_corrections(path)
    if not corrections:
        note = f"Corrections: {path!r} holds none."
        return dataset.replace(notes=(*dataset.notes, note))
    return data.apply_corrections(dataset, corrections)


def resolve_data(recipe: Recipe, dataset: Dataset) -> Dataset:
    """The data set with equal images of several parts dealt with as the recipe says.

    A data set of the caller's own also gets its corrections and its groups of near-copies here.
    With folds the parts are those of the recipe's fold, and with unseen identities nobody is in
    two of them, nor any image. Last comes what is not to be learned from.

    Raises:
      DataError: see `label_data`, `data.fold`, `data.disjoint_identities`,
        `data.resolve_duplicates`, `data.fewer_identities` and `data.few_shots`.
    """
    d = recipe.data
    if d.source.startswith("custom:"):
        dataset = label_data(recipe, dataset)
    grouped = group_data(recipe, dataset)
    if d.folds:
        grouped = data.fold(
            grouped,
            d.folds,
            d.fold,
            validation=d.validation,
            seed=d.split_seed,
            whole=d.duplicates == "regroup",
        )
    if d.unseen_identities:
        resolved = _unseen(recipe, grouped)
    else:
        resolved = data.resolve_duplicates(grouped, d.duplicates, split_seed=d.split_seed)
    if d.identities:
        resolved = data.fewer_identities(resolved, d.identities, seed=d.split_seed)
    if d.shots:
        resolved = data.few_shots(resolved, d.shots, seed=d.split_seed)
    return resolved


def _unseen(recipe: Recipe, dataset: Dataset) -> Dataset:
    """The data set dealt out by people: see `DataRecipe.unseen_identities`."""
    d = recipe.data
    labels = [split.targets["label"] for split in dataset.splits.values()]
    people = len(np.unique(np.concatenate(labels))) if labels[0].ndim == 1 else 0
    validation = max(2, round(d.validation * (people - d.unseen_identities)))
    return data.disjoint_identities(
        dataset, validation=validation, test=d.unseen_identities, seed=d.split_seed
    )


def group_data(recipe: Recipe, dataset: Dataset) -> Dataset:
    """The caller's own data set with groups of near-copies, where the recipe wants them.

    A data set that was loaded by its name or path has them already.
    """
    if recipe.data.group_near_duplicates and recipe.data.source.startswith("custom:"):
        return data.group_near_duplicates(dataset)
    return dataset


def located(recipe: Recipe) -> Recipe:
    """The recipe with absolute paths, so that the run can be resumed from anywhere."""
    tables = {"corrections": recipe.data.corrections, "hierarchy": recipe.data.hierarchy}
    for name, table in tables.items():
        if table is not None:
            absolute = str(Path(table).expanduser().absolute())
            recipe = recipe.override({f"data.{name}": absolute})
    source = recipe.data.source
    if source == "digits" or source.startswith("custom:"):
        return recipe
    if source.startswith("tfds:"):
        return recipe.override({"data.root": str(data.tfds_root(recipe.data.root))})
    root = Path(recipe.data.root or ".").expanduser().absolute()
    path = Path(source).expanduser()
    changes = {"data.root": str(root)}
    if path.exists():
        changes["data.source"] = str(path.absolute())
    return recipe.override(changes)


def _column(name: str | None) -> str | int | None:
    """A column's name, or its position where the text is a number."""
    return int(name) if name is not None and name.isdecimal() else name
