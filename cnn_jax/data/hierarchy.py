"""Which group each class is in: further targets of the data, found or added."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cnn_jax.data.dataset import Dataset
from cnn_jax.errors import DataError


def parents(dataset: Dataset, target: str) -> tuple[str, ...]:
    """For each class the name of the group that its images are in.

    A class without an image is its own group.

    Args:
      dataset: of one class for each image.
      target: the other target, such as `coarse`.

    Raises:
      DataError: there is no such target, or images of a class are in several groups.
    """
    others = [name for name, kind in dataset.kinds.items() if name != "label" and kind == "class"]
    if target not in others or dataset.kinds["label"] != "class":
        has = f"it has {', '.join(map(repr, others))}" if others else "it has none"
        raise DataError(
            f"{dataset.name!r} has no further target {target!r} that groups its classes: {has}"
        )
    classes, groups = dataset.classes["label"], dataset.classes[target]
    found: dict[int, int] = {}
    for split in dataset.splits.values():
        both = np.stack([split.targets["label"], split.targets[target]], axis=1)
        for label, group in np.unique(both, axis=0).tolist():
            if found.setdefault(label, group) != group:
                raise DataError(
                    f"{target!r} does not group the classes: {classes[label]!r} is in "
                    f"{groups[found[label]]!r} and in {groups[group]!r}"
                )
    return tuple(
        groups[found[label]] if label in found else name for label, name in enumerate(classes)
    )


_RESERVED = ("image", "mask", "index", "valid")  # of a batch; see `training.feed.Feed`


def group_classes(
    dataset: Dataset, levels: Sequence[str], ancestors: Sequence[Sequence[str]]
) -> Dataset:
    """The data set with a further target for each level of a hierarchy of its classes.

    Its digest stays that of the examples, so that runs with and without one compare; a note
    names the levels.

    Args:
      dataset: of one class for each image.
      levels: names of the new targets, such as `("family", "order")`.
      ancestors: of each class, in the order of the data set's, its group at each level.

    Raises:
      DataError: images have several labels, the data set has a target of such a name or batches
        have something else of it, or there are not as many ancestors as classes and levels.
    """
    if dataset.kinds.get("label") != "class":
        raise DataError(f"{dataset.name!r} has no one class for each image that could be grouped")
    if reserved := [name for name in levels if name in _RESERVED]:
        raise DataError(
            f"a level cannot be called {reserved[0]!r}, which batches have besides: call it "
            "otherwise"
        )
    if taken := [name for name in levels if name in dataset.kinds]:
        raise DataError(
            f"{dataset.name!r} has a target {taken[0]!r} already: call the level otherwise"
        )
    classes = dataset.classes["label"]
    if len(ancestors) != len(classes) or any(len(line) != len(levels) for line in ancestors):
        raise DataError(
            f"a hierarchy of {len(classes)} classes and {len(levels)} levels needs as many lines, "
            f"of as many ancestors"
        )
    names = {
        level: tuple(dict.fromkeys(line[i] for line in ancestors)) for i, level in enumerate(levels)
    }
    group = {
        level: np.array([names[level].index(line[i]) for line in ancestors])
        for i, level in enumerate(levels)
    }
    splits = {}
    for part, split in dataset.splits.items():
        labels = split.targets["label"]
        added = {level: of[labels].astype(labels.dtype) for level, of in group.items()}
        splits[part] = replace(split, targets={**split.targets, **added})
    return dataset.replace(
        splits=splits,
        kinds={**dataset.kinds, **dict.fromkeys(levels, "class")},
        classes={**dataset.classes, **names},
        notes=(*dataset.notes, f"Classes are grouped by {', '.join(levels)}."),
    )
