"""Masks that say where, and labels that say what: together, regions of several kinds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cnn_jax.data.dataset import Dataset
from cnn_jax.data.digest import dataset_digest
from cnn_jax.data.masks import MOST_REGIONS
from cnn_jax.data.reading import some_of
from cnn_jax.errors import DataError


def regions_by_class(dataset: Dataset) -> Dataset:
    """The data set in which what is marked is a region of its image's class.

    So that a network learns to tell a scratch from a dent where the masks of both are black and
    white. Classes of whose images nothing is marked in any part, such as that of good pictures,
    make no region.

    Args:
      dataset: with masks of one region, and one class for each image.

    Raises:
      DataError: there are no masks, or they tell regions apart already; labels are no classes;
        nothing is marked at all; or classes are more than a mask has values.
    """
    if len(dataset.regions) != 2:
        found = some_of(list(dataset.regions[1:])) if dataset.regions else "none"
        raise DataError(
            "data.regions_by_class names what masks of one region mark by the class of the image, "
            f"and {dataset.name!r} has regions: {found}. "
            + ("Leave it out" if dataset.regions else "Set data.masks, too")
        )
    if dataset.kinds["label"] != "class":
        raise DataError(
            f"data.regions_by_class needs one class for each image, and {dataset.name!r} has "
            f"{dataset.kinds['label']} labels"
        )
    background, classes = dataset.regions[0], dataset.classes["label"]
    labels = {part: split.targets["label"] for part, split in dataset.splits.items()}
    marked = {part: _marked(split.masks) for part, split in dataset.splits.items()}
    present = np.unique(np.concatenate([labels[part][marked[part]] for part in labels]))
    if not len(present):
        raise DataError(f"nothing is marked in any mask of {dataset.name!r}: there is no region")
    if len(present) > MOST_REGIONS:
        raise DataError(
            f"{len(present)} classes of {dataset.name!r} have marked images, and a mask tells "
            f"{MOST_REGIONS} regions apart"
        )
    names = [classes[k] for k in present]
    if background in names:
        raise DataError(
            f"a class of {dataset.name!r} is called {background!r}, as is what is not marked: "
            "rename it"
        )
    number = np.zeros(len(classes), np.uint8)
    number[present] = np.arange(1, len(present) + 1)
    splits = {}
    for part, split in dataset.splits.items():
        assert split.masks is not None  # a data set with regions has masks
        own = number[labels[part]].reshape(-1, *(1,) * (split.masks.ndim - 1))
        splits[part] = replace(split, masks=split.masks * own)
    note = f"Regions by class: what is marked is {some_of(names)}, as the image is labelled."
    return dataset.replace(
        splits=splits,
        digest=dataset_digest(splits),
        regions=(background, *names),
        notes=(*dataset.notes, note),
    )


def _marked(masks: np.ndarray | None) -> np.ndarray:
    """Bool `[N]`: in which images anything is marked."""
    assert masks is not None  # a data set with regions has masks
    return np.asarray(masks.reshape(len(masks), -1).any(axis=1))
