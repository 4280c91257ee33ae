"""Leaving out image files that cannot be read, and saying which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from cnn_jax.data.decode import EncodedImage
from cnn_jax.data.reading import ImageList, Part, Reading
from cnn_jax.data.sources import find_unreadable
from cnn_jax.errors import DataError

Unreadable = Literal["stop", "leave-out"]


def without_unreadable(reading: Reading) -> tuple[Reading, dict[str, str]]:
    """What is left of a reading, and of those left out the ids and why.

    Left out is what is damaged or no image, and a file of several pictures, such as an animation,
    of which the first would be taken for the whole. Each image is decoded once for that. Masks are
    not looked at: without its mask an image would count as one in which nothing is marked.

    Raises:
      DataError: nothing is left of a part.
    """
    left_out: dict[str, str] = {}
    parts = {}
    for name, part in reading.parts.items():
        bad = {} if isinstance(part.images, np.ndarray) else find_unreadable(part.images)
        if bad and len(bad) == len(part):
            raise DataError(
                f"none of the {len(part)} images of the {name} part can be read: "
                f"{next(iter(bad.values()))}"
            )
        parts[name] = _without(part, bad)
        left_out |= {str(part.ids[row]): why for row, why in bad.items()}
    return replace(reading, parts=parts), left_out


@dataclass(frozen=True, eq=False)
class _Some:
    """Some images of a list."""

    images: ImageList
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int, /) -> Path | EncodedImage:
        return self.images[self.rows[index]]


def _without(part: Part, bad: dict[int, str]) -> Part:
    if not bad:
        return part
    assert not isinstance(part.images, np.ndarray)  # arrays were read already
    rows = np.setdiff1d(np.arange(len(part)), list(bad))
    return Part(
        images=_Some(part.images, rows),
        targets={name: values[rows] for name, values in part.targets.items()},
        ids=part.ids[rows],
        groups=None if part.groups is None else part.groups[rows],
        masks=_masks(part.masks, rows),
    )


def _masks(
    masks: np.ndarray | Sequence[tuple[Path, ...]] | None, rows: np.ndarray
) -> np.ndarray | Sequence[tuple[Path, ...]] | None:
    if masks is None or isinstance(masks, np.ndarray):
        return None if masks is None else masks[rows]
    return [masks[row] for row in rows]
