"""`from_arrays`: a data set from arrays that are already in memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from cnn_jax.data.assemble import Options, assemble
from cnn_jax.data.dataset import Dataset, TargetKind
from cnn_jax.data.masks import BACKGROUND, LESION, MOST_REGIONS
from cnn_jax.data.reading import Part, Reading, numbered_classes, numbered_ids
from cnn_jax.errors import DataError

# Images and labels of a part; where there are masks, these, too.
Arrays = tuple[np.ndarray, np.ndarray] | tuple[np.ndarray, np.ndarray, np.ndarray]


def from_arrays(
    images: np.ndarray,
    labels: np.ndarray,
    *,
    masks: np.ndarray | None = None,
    regions: Sequence[str] = (),
    spacing: Sequence[float] | None = None,
    classes: Sequence[str] | None = None,
    ids: Sequence[str] | np.ndarray | None = None,
    groups: Sequence[object] | np.ndarray | None = None,
    test: Arrays | None = None,
    validation: float | Arrays = 0.1,
    split_seed: int = 0,
    name: str = "arrays",
) -> Dataset:
    """A data set from images and labels, or from images, labels and masks.

    Args:
      images: uint8, or float32 within 0..1; `[N, H, W]` or `[N, H, W, C]`; with masks also
        volumes `[N, D, H, W, C]`.
      labels: integer class indices `[N]`; or floats `[N, K]`, taken for distributions over K
        classes where every row sums to 1, and for multi-label where all are 0 or 1.
      masks: integers `[N, H, W]` (volumes `[N, D, H, W]`): the region of each pixel; 0 is the
        background. A network then learns these, and labels only stratify the parts.
      regions: names of the values of the masks, the background first; by default `background`
        and `lesion`, or `region 1`, `region 2`, ....
      spacing: millimetres from pixel to pixel along each spatial axis; distances between masks are
        then in mm, else in pixels.
      classes: K class names; numbers by default.
      ids: N unique strings; `train/00000`, ... by default.
      groups: N values; examples of one group stay in one part.
      test: (images, labels) of the test part, with masks (images, labels, masks). Without it
        the data is split 70/15/15.
      validation: the same, or the fraction of train carved off beside a given test.
      split_seed: seed of the splits that are made.
      name: name of the data set.

    Raises:
      DataError: empty data, an unexpected dtype or shape, values out of range or not finite,
        lengths that differ, masks for some parts only, or fewer than two classes without masks.
    """
    given: dict[str, Arrays] = {
        "train": (images, labels) if masks is None else (images, labels, masks)
    }
    if isinstance(validation, tuple):
        given["validation"] = validation
    if test is not None:
        given["test"] = test
    parts = {part: _part(part, *arrays) for part, arrays in given.items()}
    parts["train"] = _named(parts["train"], ids, groups)
    labels_of = [part.targets["label"] for part in parts.values()]
    kind = _kind(labels_of)
    if classes is not None:
        names = tuple(map(str, classes))
    elif kind == "class":
        names = numbered_classes(labels_of)
    else:
        names = tuple(str(k) for k in range(labels_of[0].shape[1]))
    fraction = 0.1 if isinstance(validation, tuple) else validation
    axes = parts["train"].images.ndim - 2  # type: ignore[union-attr]
    if spacing is not None and (len(spacing) != axes or not min(spacing) > 0):
        raise DataError(f"spacing must be {axes} positive numbers, not {list(spacing)}")
    dataset = assemble(
        Reading(
            parts=parts,
            classes={"label": names},
            kinds={"label": kind},
            regions=_regions(regions, parts.values()),
        ),
        Options(validation=fraction, split_seed=split_seed),
        name,
    )
    return dataset if spacing is None else dataset.replace(spacing=tuple(map(float, spacing)))


def _part(
    name: str, images: np.ndarray, labels: np.ndarray, masks: np.ndarray | None = None
) -> Part:
    images = _images(name, np.asarray(images), volumes=masks is not None)
    labels = _labels(name, np.asarray(labels))
    if len(images) != len(labels):
        raise DataError(f"{name}: {len(images)} images but {len(labels)} labels")
    found = None if masks is None else _masks(name, np.asarray(masks), images.shape[:-1])
    return Part(images, {"label": labels}, numbered_ids(name, len(images)), masks=found)


def _masks(name: str, masks: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """uint8 of `shape`."""
    if masks.dtype.kind not in "biu" or masks.shape != shape:
        raise DataError(
            f"{name} masks are {masks.dtype} {list(masks.shape)}, not integers {list(shape)}: one "
            "for each pixel"
        )
    if masks.min() < 0 or masks.max() > MOST_REGIONS:
        raise DataError(
            f"{name} masks lie in {masks.min()}..{masks.max()}: 0 is the background, and regions "
            f"count from 1 to at most {MOST_REGIONS}"
        )
    return masks.astype(np.uint8)


def _regions(named: Sequence[str], parts: Iterable[Part]) -> tuple[str, ...]:
    """Names of the values of the masks; empty without masks."""
    masks = [part.masks for part in parts if isinstance(part.masks, np.ndarray)]
    if named or not masks:
        return tuple(map(str, named))
    largest = max(int(some.max()) for some in masks)
    if largest < 2:
        return (BACKGROUND, LESION)
    return (BACKGROUND, *(f"region {r}" for r in range(1, largest + 1)))


def _named(
    part: Part,
    ids: Sequence[str] | np.ndarray | None,
    groups: Sequence[object] | np.ndarray | None,
) -> Part:
    """The part with the caller's ids and groups, as text."""
    return Part(
        images=part.images,
        targets=part.targets,
        ids=part.ids if ids is None else np.array([str(i) for i in ids], dtype=np.str_),
        groups=None if groups is None else np.array([str(g) for g in groups], dtype=np.str_),
        masks=part.masks,
    )


def _images(name: str, images: np.ndarray, *, volumes: bool) -> np.ndarray:
    if images.ndim not in ((3, 4, 5) if volumes else (3, 4)) or 0 in images.shape:
        raise DataError(
            f"{name} images have shape {list(images.shape)}, not [N, H, W] or [N, H, W, C] with "
            "at least one image"
        )
    if images.dtype not in (np.uint8, np.float32):
        raise DataError(f"{name} images are {images.dtype}: convert them to uint8 or float32")
    if images.dtype == np.float32 and not (images.min() >= 0 and images.max() <= 1):
        raise DataError(
            f"{name} images have float values outside 0..1 or not finite; divide by the largest "
            "possible value, or pass uint8"
        )
    return images[..., None] if images.ndim == 3 else images


def _labels(name: str, labels: np.ndarray) -> np.ndarray:
    """int32 `[N]` or float32 `[N, K]`."""
    if labels.dtype.kind in "iu" and labels.ndim == 1:
        if len(labels) and (labels.min() < 0 or labels.max() > np.iinfo(np.int32).max):
            raise DataError(f"{name} labels lie in {labels.min()}..{labels.max()}: count from 0")
        return labels.astype(np.int32)
    if labels.dtype.kind == "f" and labels.ndim == 2 and labels.shape[1] > 0:
        if not ((labels >= 0) & (labels <= 1)).all():
            raise DataError(f"{name} labels have values outside 0..1 or not finite")
        return labels.astype(np.float32)
    raise DataError(
        f"{name} labels are {labels.dtype} {list(labels.shape)}, not integers [N] or floats [N, K]"
    )


def _kind(labels: Sequence[np.ndarray]) -> TargetKind:
    if len({array.shape[1:] for array in labels}) > 1:
        raise DataError("labels of the parts have different shapes")
    if labels[0].ndim == 1:
        return "class"
    values = np.concatenate(labels)
    if np.allclose(values.sum(axis=1), 1, atol=1e-4):
        return "soft"
    if np.isin(values, (0, 1)).all():
        return "multilabel"
    raise DataError("labels [N, K] must sum to 1 in each row, or all be 0 or 1")
