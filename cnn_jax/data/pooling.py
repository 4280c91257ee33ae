"""The examples of several parts as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cnn_jax.data.dataset import Dataset, ImageSource, Split
from cnn_jax.data.duplicates import pixel_keys
from cnn_jax.data.groups import COPIES_STAY, pooled_names, unite_groups
from cnn_jax.data.reading import some_of
from cnn_jax.data.sources import JoinedSource
from cnn_jax.data.splits import LEAK, MADE, NEAR_LEAK
from cnn_jax.errors import DataError


def pooled_groups(splits: Mapping[str, Split]) -> tuple[np.ndarray, np.ndarray]:
    """str `[N]` each: ids and groups of all parts in order, equal images in one group."""
    ids, given = pooled_names(splits)
    keys = np.concatenate([pixel_keys(split) for split in splits.values()])
    groups = unite_groups(ids, given, keys)
    return ids, given if groups is None else groups


def notes_without_parts(dataset: Dataset) -> list[str]:
    """The notes that stay true when its parts are dealt out anew."""
    return [
        text
        for text in dataset.notes
        if not text.startswith((LEAK, NEAR_LEAK, MADE)) and not text.endswith(COPIES_STAY)
    ]


def pool(dataset: Dataset, parts: Sequence[str], otherwise: str) -> Split:
    """The examples of some parts as one split, equal images in one group.

    Args:
      dataset: a data set.
      parts: names of its parts.
      otherwise: what the user may do where that cannot be.

    Raises:
      DataError: the parts have other targets, or not all of them lie in memory.
    """
    splits = {part: dataset.splits[part] for part in parts}
    names = {name for split in splits.values() for name in split.targets}
    gaps = [name for name in names if any(name not in split.targets for split in splits.values())]
    if gaps:
        raise DataError(
            f"{dataset.name!r} cannot be pooled: not every part has {some_of(sorted(gaps))}; leave "
            f"such targets out, or {otherwise}"
        )
    ids, groups = pooled_groups(splits)
    return Split(
        images=_joined(dataset.name, [split.images for split in splits.values()], otherwise),
        targets={
            name: np.concatenate([split.targets[name] for split in splits.values()])
            for name in next(iter(splits.values())).targets
        },
        ids=ids,
        groups=groups,
        masks=_joined_masks(list(splits.values())),
    )


def _joined_masks(splits: Sequence[Split]) -> np.ndarray | None:
    masks = [split.masks for split in splits if split.masks is not None]
    return np.concatenate(masks) if masks else None


def _joined(
    name: str, images: Sequence[np.ndarray | ImageSource], otherwise: str
) -> np.ndarray | JoinedSource:
    arrays = [some for some in images if isinstance(some, np.ndarray)]
    if len(arrays) == len(images):
        return np.concatenate(arrays)
    if arrays:
        raise DataError(
            f"{name!r} cannot be pooled: some parts are arrays and some are read when "
            f"needed; make all of one sort, or {otherwise}"
        )
    return JoinedSource([some for some in images if not isinstance(some, np.ndarray)])
