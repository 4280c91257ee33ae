"""`Reading`: what a reader found on disk, before splits are made and files are decoded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from cnn_jax.data.dataset import TargetKind
from cnn_jax.data.decode import EncodedImage
from cnn_jax.errors import DataError

PARTS = ("train", "validation", "test")

# The names by which folders, files and columns call the three parts, in lower case.
PART_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}


class ImageList(Protocol):
    """Encoded images in order; item i is the path of a file, or contents read when asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Path | EncodedImage: ...


@dataclass(frozen=True, eq=False)
class Part:
    """The examples of one part.

    Attributes:
      images: uint8 or float32 `[N, H, W, C]` (volumes `[N, D, H, W, C]`), or N encoded
        images.
      targets: name -> int32 `[N]` or float32 `[N, K]`; the main one is `label`.
      ids: str `[N]`.
      groups: str `[N]` or None.
      masks: uint8 `[N, H, W]`, or the mask files of each encoded image, or None.
    """

    images: np.ndarray | ImageList
    targets: Mapping[str, np.ndarray]
    ids: np.ndarray
    groups: np.ndarray | None = None
    masks: np.ndarray | Sequence[tuple[Path, ...]] | None = None

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, eq=False)
class Reading:
    """What a reader found: the parts that are given, and what their labels mean.

    Attributes:
      parts: some of `train`, `validation`, `test`; data without parts is `train` alone.
      classes: target name -> class names.
      kinds: target name -> `class`, `multilabel` or `soft`.
      notes: what was decided while reading, a sentence each.
      image_shape: (H, W, C) of every encoded image, where the source states it; otherwise
        their headers are looked at.
      licence, citation: as the source states them; empty if it does not.
      regions: what the values of masks mean, the background first; empty without masks.
      named_regions: whether mask files hold numbers of regions, rather than one other value.
    """

    parts: Mapping[str, Part]
    classes: Mapping[str, tuple[str, ...]]
    kinds: Mapping[str, TargetKind] = field(default_factory=lambda: {"label": "class"})
    notes: tuple[str, ...] = ()
    image_shape: tuple[int, int, int] | None = None
    licence: str = ""
    citation: str = ""
    regions: tuple[str, ...] = ()
    named_regions: bool = False


def numbered_ids(part: str, n: int) -> np.ndarray:
    """str `[n]`: `train/00000`, `train/00001`, ... for examples without a name of their own."""
    return np.array([f"{part}/{i:05d}" for i in range(n)], dtype=np.str_)


def numbered_classes(labels: Iterable[np.ndarray]) -> tuple[str, ...]:
    """Class names `0`..`max` for integer labels that come without names."""
    return tuple(str(k) for k in range(1 + max(int(a.max(initial=0)) for a in labels)))


def encode_labels(labels: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """int32 `[N]`: the position of each label in `classes`."""
    index = {name: k for k, name in enumerate(classes)}
    return np.array([index[label] for label in labels], dtype=np.int32)


def main_target_first(names: Sequence[str], chosen: str | int | None, where: str) -> list[str]:
    """`names` with the chosen one (by name or 0-based position) moved to the front.

    Raises:
      DataError: the choice is not among the names.
    """
    if chosen is None:
        return list(names)
    if isinstance(chosen, int) and 0 <= chosen < len(names):
        chosen = names[chosen]
    if chosen not in names:
        raise DataError(f"{where} has no label {chosen!r}; it has {', '.join(map(repr, names))}")
    return [str(chosen), *(name for name in names if name != chosen)]


def counted(n: int, one: str, many: str) -> str:
    """`1 image`, `2 images`: a number and the form of the word that goes with it."""
    return f"{n:,} {one if n == 1 else many}"


def some_of(values: Sequence[object]) -> str:
    """The first three of many values, for a message of one line."""
    shown = ", ".join(repr(str(value)) for value in values[:3])
    return shown if len(values) <= 3 else f"{shown}, ..."
