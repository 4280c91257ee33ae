"""Which group each class is in, by a further target of the data."""

from __future__ import annotations

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
