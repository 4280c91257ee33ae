"""Fewer examples to learn from: for learning curves over people, and over images of each class."""

from __future__ import annotations

import numpy as np

from cnn_jax.data.dataset import Dataset, Split
from cnn_jax.data.digest import dataset_digest
from cnn_jax.data.reading import counted
from cnn_jax.data.splits import hashed_order
from cnn_jax.errors import DataError


def fewer_identities(dataset: Dataset, count: int, *, seed: int = 0) -> Dataset:
    """The data set whose train part has so many people (classes), with all of their images.

    Which ones hangs on the seed and the names of the classes alone; a larger number keeps the
    same people and adds others.

    Args:
      dataset: with a train part; the target `label` is the person.
      count: of people to learn from, 2 or more.
      seed: another seed, other people.

    Raises:
      DataError: labels that are no classes, or fewer people in the train part.
    """
    train = _train_of(dataset, "data.identities")
    people = np.unique(train.targets["label"])
    if not 2 <= count <= len(people):
        raise DataError(
            f"{count} people to learn from cannot be taken of {len(people)} in the train part of "
            f"{dataset.name!r}: choose 2 to {len(people)}"
        )
    names = np.asarray(dataset.classes["label"], np.str_)[people]
    kept = people[np.argsort(hashed_order(names, seed))[:count]]
    rows = np.flatnonzero(np.isin(train.targets["label"], kept))
    note = f"{count} of {len(people)} people to learn from (seed {seed})."
    return _with_train(dataset, train.take(rows), note)


def few_shots(dataset: Dataset, shots: int, *, seed: int = 0) -> Dataset:
    """The data set whose train part has so many images of each class, at most.

    Which ones hangs on the seed and the ids alone; a larger number keeps the same images and adds
    others. A class that has fewer keeps all. The order of the examples stays.

    Args:
      dataset: with a train part.
      shots: images of each class, 1 or more.
      seed: another seed, other images.

    Raises:
      DataError: labels that are no classes, or no image at all.
    """
    train = _train_of(dataset, "data.shots")
    if shots < 1:
        raise DataError(f"{shots} images of each class are nothing to learn from: take 1 or more")
    labels = train.targets["label"]
    by_class = np.lexsort((hashed_order(train.ids, seed), labels))
    _, first, size = np.unique(labels[by_class], return_index=True, return_counts=True)
    place = np.arange(len(labels)) - np.repeat(first, size)
    rows = np.sort(by_class[place < shots])
    images = counted(shots, "image", "images")
    note = f"At most {images} of each class to learn from (seed {seed}): {len(rows)} of "
    return _with_train(dataset, train.take(rows), f"{note}{len(train)}.")


def _train_of(dataset: Dataset, field: str) -> Split:
    """The train part, whose labels must be classes."""
    if dataset.kinds["label"] != "class":
        raise DataError(
            f"{dataset.name!r} has {dataset.kinds['label']} labels, and {field} needs one class "
            "for each image: set it to 0"
        )
    return dataset.splits["train"]


def _with_train(dataset: Dataset, train: Split, note: str) -> Dataset:
    splits = {**dataset.splits, "train": train}
    return dataset.replace(
        splits=splits, digest=dataset_digest(splits), notes=(*dataset.notes, note)
    )
