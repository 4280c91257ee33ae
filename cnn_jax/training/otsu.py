"""A baseline of masks without a network: Otsu's threshold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cnn_jax.data import Dataset, Split
from cnn_jax.errors import DataError
from cnn_jax.evaluation import MaskPredictions, components

_LEVELS = 256


@dataclass(frozen=True, eq=False)
class MaskBaseline:
    """Masks of validation and test part by a simple method.

    Attributes:
      name: of the method.
      note: what was chosen on the training part, one sentence.
      predictions: part -> its masks, with probabilities of 0 and 1.
    """

    name: str
    note: str
    predictions: Mapping[str, MaskPredictions]


def check_otsu(dataset: Dataset) -> None:
    """Raise `DataError` for what has several regions, or no planes to threshold."""
    if len(dataset.regions) != 2 or len(dataset.image_shape) != 3:
        raise DataError(
            f"the baseline of masks marks one region in images, not {len(dataset.regions) - 1} in "
            f"{list(dataset.image_shape)}: leave baselines out"
        )


def otsu(dataset: Dataset) -> MaskBaseline:
    """Mark what lies beyond each image's own threshold (Otsu 1979).

    Chosen on the training part, by the mean Dice of its images: whether the dark or the bright
    side is marked, and whether all of it or only its largest connected part.

    Args:
      dataset: with masks of one region.

    Raises:
      DataError: several regions, or volumes.
    """
    check_otsu(dataset)
    train = dataset.splits["train"]
    ways = [(bright, largest) for bright in (False, True) for largest in (False, True)]
    scores = [_mean_dice(_marked(train, *way), train.masks) for way in ways]
    bright, largest = ways[int(np.argmax(scores))]
    what = f"the {'bright' if bright else 'dark'} side of each image's threshold"
    part = "its largest connected part" if largest else "all of it"
    return MaskBaseline(
        name="Otsu threshold",
        note=f"{what}, {part}: the best of four ways on the training part.",
        predictions={
            name: MaskPredictions(
                split=name,
                ids=split.ids,
                masks=split.masks,
                probabilities=_marked(split, bright, largest)[..., None].astype(np.float16),
                regions=dataset.regions,
                groups=split.groups,
                spacing=dataset.spacing,
            )
            for name, split in dataset.splits.items()
            if name != "train" and split.masks is not None
        },
    )


def threshold_of(image: np.ndarray) -> int:
    """The level t of 0..254 that parts an image best into values <= t and > t.

    It maximises the variance between the two, w0 w1 (m0 - m1)^2, with w the shares and m the
    means of the two sides (Otsu 1979, eq. 14); the lowest such level.

    Args:
      image: uint8, any shape.
    """
    counts = np.bincount(image.ravel(), minlength=_LEVELS).astype(np.float64)
    below = np.cumsum(counts)[:-1]
    above = counts.sum() - below
    total = np.cumsum(counts * np.arange(_LEVELS))
    low, high = total[:-1], total[-1] - total[:-1]
    difference = low / np.maximum(below, 1) - high / np.maximum(above, 1)
    return int((below * above * difference**2).argmax())


def _marked(split: Split, bright: bool, largest: bool) -> np.ndarray:
    """bool `[N, H, W]`."""
    marked = np.empty((len(split), *split.image_shape[:-1]), bool)
    for index in range(len(split)):
        image = split.read_images([index])[0]
        if image.dtype != np.uint8:
            image = np.round(image * (_LEVELS - 1)).astype(np.uint8)
        grey = image.mean(axis=-1).round().astype(np.uint8)
        above = grey > threshold_of(grey)
        found = above if bright else ~above
        if largest:
            labels, count = components(found)
            if count:
                found = labels == np.bincount(labels.ravel())[1:].argmax() + 1
        marked[index] = found
    return marked


def _mean_dice(marked: np.ndarray, masks: np.ndarray | None) -> float:
    assert masks is not None  # a data set with regions has masks
    given = masks > 0
    both, total = ((x).sum(axis=(1, 2)) for x in (marked & given, marked * 1 + given))
    return float(np.where(total > 0, 2 * both / np.maximum(total, 1), 1.0).mean())
