"""Cross-validation: each fold is tested on once, by a network that was trained on the others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cnn_jax.data.dataset import Dataset
from cnn_jax.data.digest import dataset_digest
from cnn_jax.data.pooling import notes_without_parts, pool
from cnn_jax.data.reading import PARTS, counted
from cnn_jax.data.splits import MADE, assign_parts
from cnn_jax.errors import DataError


def fold(
    dataset: Dataset,
    folds: int,
    number: int,
    *,
    validation: float = 0.1,
    seed: int = 0,
    whole: bool = False,
) -> Dataset:
    """The data set whose test part is one fold, and whose other parts are cut from the rest.

    The parts that were made here are pooled and dealt out anew; a test part that the data came
    with is no fold of anything: it is left out, so that it stays unseen, unless it is to be
    pooled as well, as one that leaks may be. Folds are stratified by
    class, and neither they nor the validation part cut a group; equal images count as one group.

    Args:
      dataset: with train, validation and test parts.
      folds: number of folds, two or more.
      number: of the fold that is tested on, from 1.
      validation: share of the rest that becomes the validation part.
      seed: another seed, other folds; all folds of one cross-validation have the same.
      whole: whether a test part that the data came with is pooled, too.

    Raises:
      DataError: a number that makes no sense, or fewer groups than folds need.
    """
    if folds < 2 or not 1 <= number <= folds:
        raise DataError(
            f"a cross-validation has 2 folds or more, counted from 1: not fold {number} of {folds}"
        )
    given = "test" not in made_parts(dataset) and not whole
    pooled = pool(dataset, PARTS[:-1] if given else PARTS, "do without folds")
    groups = pooled.ids if pooled.groups is None else pooled.groups
    count = len(np.unique(groups))
    if count <= folds:
        raise DataError(
            f"{counted(count, 'group', 'groups')} of images (equal images are one) cannot make "
            f"{folds} folds without cutting one, and leave some to train on: ask for fewer folds"
        )
    labels = pooled.targets["label"]
    shares = {str(k): 1 / folds for k in range(1, folds + 1)}
    of_fold = assign_parts(pooled.ids, labels, groups, shares, seed, rare_in_first=False)
    tested = of_fold == str(number)
    rest = np.flatnonzero(~tested)
    cut = {"train": 1 - validation, "validation": validation}
    part_of = assign_parts(pooled.ids[rest], labels[rest], groups[rest], cut, seed)
    positions = {
        "train": rest[part_of == "train"],
        "validation": rest[part_of == "validation"],
        "test": np.flatnonzero(tested),
    }
    for part, some in positions.items():
        if not len(some):
            raise DataError(
                f"{counted(count, 'group', 'groups')} of images (equal images are one) are too few "
                f"for a {part} part in fold {number} of {folds}: ask for fewer folds"
            )
    splits = {part: pooled.take(some) for part, some in positions.items()}
    if (groups == pooled.ids).all():
        splits = {part: replace(split, groups=None) for part, split in splits.items()}
    notes = notes_without_parts(dataset)
    how = "stratified by class" if labels.ndim == 1 else "at random"
    left_out = ", the data's own test part left out" if given else ""
    notes.append(
        f"Fold {number} of {folds} (seed {seed}): {len(pooled)} images pooled{left_out}, "
        f"{how}, groups and equal images kept whole."
    )
    return dataset.replace(splits=splits, digest=dataset_digest(splits), notes=tuple(notes))


def made_parts(dataset: Dataset) -> frozenset[str]:
    """The parts that the data did not come with, from its notes."""
    for note in dataset.notes:
        if note.startswith(MADE):
            return frozenset(note.removeprefix(MADE).partition(" part:")[0].split(" or "))
    return frozenset()
