"""The contract between data and everything else: `Split` and `Dataset`.

Nothing here knows of models. Images are uint8, NHWC; labels are int32 class indices
`[N]`, or float32 `[N, K]` for multi-label and soft targets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from cnn_jax.errors import DataError

TargetKind = Literal["class", "multilabel", "soft"]


@runtime_checkable
class ImageSource(Protocol):
    """Random access to images that do not lie in memory.

    `shape` is (H, W, C) of every image; `source[i]` returns uint8 `[H, W, C]` and must be
    a pure function of `i`, so that the order of reading never changes a batch.
    """

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of every image."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> np.ndarray: ...


@dataclass(frozen=True, eq=False)
class Split:
    """One part of a data set.

    Attributes:
      images: uint8 `[N, H, W, C]`, or an `ImageSource` of length N.
      targets: name -> int32 `[N]` or float32 `[N, K]`; the main one is called `label`.
      ids: str `[N]`, unique, stable across runs and machines.
      groups: str `[N]` or None; examples of one group (patient, scene, near-copies)
        are never parted by a split, a fold or a bootstrap.
      masks: uint8 `[N, H, W]` (of volumes `[N, D, H, W]`) or None: which region of
        `Dataset.regions` each pixel belongs to; 0 is the background.

    Raises:
      DataError: lengths differ, ids repeat, or a dtype is not the contract's.
    """

    images: np.ndarray | ImageSource
    targets: Mapping[str, np.ndarray]
    ids: np.ndarray
    groups: np.ndarray | None = None
    masks: np.ndarray | None = None

    def __post_init__(self) -> None:
        n = len(self.images)
        shape = self.images.shape[1:] if isinstance(self.images, np.ndarray) else self.images.shape
        if len(shape) not in (3, 4):
            raise DataError(f"images must be [N, H, W, C] or [N, D, H, W, C], not [N, {shape}]")
        if isinstance(self.images, np.ndarray) and self.images.dtype not in (np.uint8, np.float32):
            raise DataError(f"images must be uint8 or float32, not {self.images.dtype}")
        if len(self.ids) != n:
            raise DataError(f"{n} images but {len(self.ids)} ids")
        if len(np.unique(self.ids)) != n:
            raise DataError("ids repeat: every example needs its own")
        if self.groups is not None and len(self.groups) != n:
            raise DataError(f"{n} images but {len(self.groups)} groups")
        if self.masks is not None:
            wanted = (n, *shape[:-1])
            if self.masks.dtype != np.uint8 or self.masks.shape != wanted:
                raise DataError(
                    f"masks must be uint8 {list(wanted)}, a value for each pixel, not "
                    f"{self.masks.dtype} {list(self.masks.shape)}"
                )
        for name, target in self.targets.items():
            if len(target) != n:
                raise DataError(f"{n} images but {len(target)} targets called {name!r}")
            ok = (target.dtype == np.int32 and target.ndim == 1) or (
                target.dtype == np.float32 and target.ndim == 2
            )
            if not ok:
                raise DataError(
                    f"target {name!r} must be int32 [N] or float32 [N, K], "
                    f"not {target.dtype} {list(target.shape)}"
                )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(H, W, C), or (D, H, W, C) for volumes."""
        images = self.images
        return tuple(images.shape[1:] if isinstance(images, np.ndarray) else images.shape)

    @property
    def in_memory(self) -> bool:
        """Whether the images are one array."""
        return isinstance(self.images, np.ndarray)

    def read_images(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Images `[len(indices), H, W, C]` at the given positions, as a fresh array."""
        indices = np.asarray(indices)
        if isinstance(self.images, np.ndarray):
            return self.images[indices]
        return np.stack([self.images[int(i)] for i in indices])

    def take(self, indices: Sequence[int] | np.ndarray) -> Split:
        """The examples at `indices`, in that order, as a split of their own."""
        indices = np.asarray(indices)
        images: np.ndarray | ImageSource
        if isinstance(self.images, np.ndarray):
            images = self.images[indices]
        else:
            images = SourceView(self.images, indices)
        return Split(
            images=images,
            targets={name: target[indices] for name, target in self.targets.items()},
            ids=self.ids[indices],
            groups=None if self.groups is None else self.groups[indices],
            masks=None if self.masks is None else self.masks[indices],
        )


@dataclass(frozen=True, eq=False)
class SourceView:
    """Some images of an `ImageSource`, without reading them: image i is `source[indices[i]]`."""

    source: ImageSource
    indices: np.ndarray
    shape: tuple[int, int, int] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", self.source.shape)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int, /) -> np.ndarray:
        return self.source[int(self.indices[index])]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Named splits with what their numbers mean.

    Attributes:
      name: short name, used in folder names and tables.
      splits: any of `train`, `validation`, `test` (and others), in that order.
      classes: target name -> class names; index k of a label means `classes[target][k]`.
      kinds: target name -> `class` (one of K), `multilabel` (any of K) or `soft`
        (a distribution over K).
      digest: sha256 (hex) of images, targets, masks and ids; two data sets with the same
        digest hold the same examples.
      licence, citation: as the source states them; empty if it does not.
      spacing: millimetres per pixel (or voxel) along each spatial axis, or None.
      notes: what was decided while reading (one sentence each), shown to the user.
      regions: what the values of the masks mean, `("background", "lesion")` for example; empty
        for data without masks. Data with masks are segmented, data without are classified.
      unread: ids of files that were left out as they cannot be read -> why.

    Raises:
      DataError: no splits, splits of different image shape, labels outside the classes, masks
        in some splits only, or with values that are no region.
    """

    name: str
    splits: Mapping[str, Split]
    classes: Mapping[str, tuple[str, ...]]
    digest: str
    kinds: Mapping[str, TargetKind] = field(default_factory=lambda: {"label": "class"})
    licence: str = ""
    citation: str = ""
    spacing: tuple[float, ...] | None = None
    notes: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    unread: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.splits:
            raise DataError(f"data set {self.name!r} has no splits")
        shapes = {name: split.image_shape for name, split in self.splits.items()}
        if len(set(shapes.values())) > 1:
            raise DataError(f"image shapes differ between the splits of {self.name!r}: {shapes}")
        for part, split in self.splits.items():
            for target, values in split.targets.items():
                self._check_target(part, target, values, split.ids)
            self._check_masks(part, split)

    def _check_masks(self, part: str, split: Split) -> None:
        if (split.masks is not None) != bool(self.regions) or len(self.regions) == 1:
            raise DataError(
                f"{self.name}: {part!r} has {'no ' if split.masks is None else ''}masks, but the "
                f"regions are {list(self.regions)}: name the background and one region or more, "
                "and give every part masks"
            )
        if split.masks is None or not split.masks.size:
            return
        if split.masks.max() >= len(self.regions):
            outside = split.masks >= len(self.regions)
            first = int(outside.reshape(len(split), -1).any(axis=1).argmax())
            value = int(split.masks[first].max())
            raise DataError(
                f"{self.name}: the mask of {str(split.ids[first])!r} in {part!r} has the value "
                f"{value}, outside 0..{len(self.regions) - 1} ({', '.join(self.regions)})"
            )

    def _check_target(self, part: str, target: str, values: np.ndarray, ids: np.ndarray) -> None:
        if target not in self.classes:
            raise DataError(f"{self.name}: target {target!r} has no class names")
        if target not in self.kinds:
            raise DataError(f"{self.name}: target {target!r} has no kind")
        k = len(self.classes[target])
        if values.ndim == 1:
            bad = np.flatnonzero((values < 0) | (values >= k))
            if len(bad):
                raise DataError(
                    f"{self.name}: label {int(values[bad[0]])} of example {str(ids[bad[0]])!r} in "
                    f"{part!r} is outside 0..{k - 1} ({len(bad)} such labels of {target!r})"
                )
        elif values.shape[1] != k:
            raise DataError(
                f"{self.name}: {target!r} has {values.shape[1]} columns for {k} class names"
            )
        elif (
            not np.isfinite(values).all() or values.min(initial=0) < 0 or values.max(initial=0) > 1
        ):
            raise DataError(f"{self.name}: {target!r} in {part!r} has values outside 0..1")

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(H, W, C) of every image."""
        return next(iter(self.splits.values())).image_shape

    def replace(self, **changes: object) -> Dataset:
        """A copy with some fields changed."""
        return replace(self, **changes)  # type: ignore[arg-type]
