"""Windows of pictures that are too large, or too unlike in size, to be looked at as one image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnn_jax.data import Split, read_header
from cnn_jax.data.large import MOST_PIXELS, LargePicture, large_picture
from cnn_jax.errors import DataError, RecipeError
from cnn_jax.training.windows import window_starts

# Windows of normal pictures that a detector learns from: 330 MB of grey ones of 128 pixels.
MOST_LEARNED = 20_000
# Windows that are looked at together.
_AT_ONCE = 64


@dataclass(frozen=True)
class Tiles:
    """Square windows at the pictures' own resolution, which together cover all of each.

    Attributes:
      size: side in pixels; where a picture is smaller its border is repeated.
      overlap: least share that a window has in common with the next, so that what lies on the
        border of one lies inside of another.

    Raises:
      RecipeError: a size below 8, or an overlap outside of 0..0.9.
    """

    size: int
    overlap: float = 0.25

    def __post_init__(self) -> None:
        if self.size < 8 or not 0 <= self.overlap <= 0.9:
            raise RecipeError(
                f"tiles of {self.size} pixels with an overlap of {self.overlap:g}: give 8 pixels "
                "or more, and 0 to 0.9"
            )

    def places(self, height: int, width: int) -> list[tuple[int, int]]:
        """Top and left of each window, row by row."""
        across = window_starts(width, self.size, self.overlap)
        return [
            (top, left) for top in window_starts(height, self.size, self.overlap) for left in across
        ]

    def blocks(self, picture: LargePicture) -> Iterator[tuple[list[tuple[int, int]], np.ndarray]]:
        """Places, and the windows there, uint8 `[n, size, size, C]`, some at a time."""
        places = self.places(picture.height, picture.width)
        for start in range(0, len(places), _AT_ONCE):
            some = places[start : start + _AT_ONCE]
            yield some, np.stack([picture.window(*place, self.size) for place in some])


def windows_of(
    files: Sequence[Path], split: Split, channels: int, tiles: Tiles, *, seed: int = 0
) -> Split:
    """The windows of some pictures as examples of their own, in the order of the pictures.

    Where there are more than `MOST_LEARNED` so many are drawn from all, each equally likely.

    Args:
      files: one for each example of the split.
      split: whose labels they have; its ids and groups are theirs, so that no picture is cut.
      channels: 1 or 3.
      tiles: which windows.
      seed: of the draw.

    Raises:
      DataError: a file cannot be read.
    """
    headers = [read_header(file, MOST_PIXELS) for file in files]
    places = [
        (k, place)
        for k, header in enumerate(headers)
        for place in tiles.places(header.height, header.width)
    ]
    if len(places) > MOST_LEARNED:
        drawn = np.random.default_rng(seed).choice(len(places), MOST_LEARNED, replace=False)
        places = [places[k] for k in np.sort(drawn).tolist()]
    of = np.array([k for k, _ in places], np.int64)
    pixels = np.empty((len(places), tiles.size, tiles.size, channels), np.uint8)
    # One picture after the other: of large ones two at once may be one too many.
    for k in np.unique(of).tolist():
        with large_picture(files[k], channels) as picture:
            for row in np.flatnonzero(of == k).tolist():
                pixels[row] = picture.window(*places[row][1], tiles.size)
    groups = split.ids if split.groups is None else split.groups
    ids = [f"{split.ids[k]}@{top},{left}" for k, (top, left) in places]
    return Split(
        images=pixels,
        targets={name: target[of] for name, target in split.targets.items()},
        ids=np.array(ids, dtype=np.str_),
        groups=groups[of],
    )


def files_of(split: Split, files: Mapping[str, Path] | None) -> list[Path]:
    """The file of each example.

    Raises:
      DataError: an example has none of its own, as images of an array have none.
    """
    files = files or {}
    missing = [str(name) for name in split.ids if str(name) not in files]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(split)} images are no files of their own, such as "
            f"{missing[0]!r}: only files are looked at one by one, or at their own resolution"
        )
    return [files[str(name)] for name in split.ids]
