"""Picture files, one after the other: how anomalous each is, and where."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnn_jax.data import Fit, decode_image
from cnn_jax.data.large import large_picture
from cnn_jax.data.sources import for_each
from cnn_jax.detecting.scorer import Scorer
from cnn_jax.detecting.tiles import Tiles

# The longer side of what is kept of a large picture to show it, in pixels.
LONGEST_SHOWN = 768
# Pictures of one size that are looked at together.
_AT_ONCE = 64


@dataclass(frozen=True, eq=False)
class Look:
    """What a detector sees in one picture.

    Attributes:
      score: higher for what is more anomalous; of windows the highest.
      picture: uint8 `[h, w, C]`, as it was looked at, or of windows the whole, made smaller.
      heat: float32 `[h, w]` of the same size, where it is anomalous; None where the detector
        looks at whole images.
    """

    score: float
    picture: np.ndarray
    heat: np.ndarray | None


def look_at(
    scorer: Scorer,
    files: Sequence[Path],
    image_shape: tuple[int, ...],
    fit: Fit,
    tiles: Tiles | None,
) -> Iterator[Look]:
    """What a detector sees in each of some files, in their order.

    In memory are at most 64 pictures of the detector's size; or, with windows, one decoded picture,
    64 windows of it, and what the network makes of these.

    Args:
      scorer: of the detector.
      files: pictures of any size.
      image_shape: (H, W, C) that they, or their windows, have.
      fit: how pictures of another size are brought to it, where there are no windows.
      tiles: which windows are looked at; None for whole pictures.

    Raises:
      DataError: a file cannot be read.
    """
    if tiles is not None:
        for file in files:
            yield _in_windows(scorer, file, image_shape[-1], tiles)
        return
    for start in range(0, len(files), _AT_ONCE):
        some = files[start : start + _AT_ONCE]
        pixels = np.stack(
            for_each(lambda k, some=some: decode_image(some[k], image_shape, fit), len(some))  # type: ignore[misc]
        )
        scores, maps = scorer.look(pixels)
        height, width = image_shape[:2]
        heats = None if maps is None else scorer.drawn(maps, (height, width))
        for k, score in enumerate(scores.tolist()):
            yield Look(score, pixels[k], None if heats is None else heats[k])


def _in_windows(scorer: Scorer, file: Path, channels: int, tiles: Tiles) -> Look:
    with large_picture(file, channels) as picture:
        shown = picture.reduced(LONGEST_SHOWN)
        high, wide = shown.shape[:2]
        scale = high / picture.height, wide / picture.width
        heat = None if scorer.of_whole else np.full((high, wide), -np.inf, np.float32)
        highest = -np.inf
        for places, windows in tiles.blocks(picture):
            scores, maps = scorer.look(windows)
            highest = max(highest, float(scores.max()))
            if maps is None or heat is None:
                continue
            drawn = scorer.drawn(maps, (tiles.size, tiles.size))
            for (top, left), one in zip(places, drawn, strict=True):
                inside = one[: picture.height - top, : picture.width - left]
                _put(heat, inside, (top, left), scale)
    return Look(highest, shown, heat)


def _put(
    heat: np.ndarray, window: np.ndarray, place: tuple[int, int], scale: tuple[float, float]
) -> None:
    """Let the highest of a window's map count in each pixel of the whole that it covers."""
    rows, columns = (
        np.minimum(((at + np.arange(n)) * by).astype(np.int64), most - 1)
        for at, n, by, most in zip(place, window.shape, scale, heat.shape, strict=True)
    )
    # Along one axis after the other: the highest of each run of pixels that share a place.
    first_rows = np.flatnonzero(np.diff(rows, prepend=-1))
    first_columns = np.flatnonzero(np.diff(columns, prepend=-1))
    small = np.maximum.reduceat(window, first_rows, axis=0)
    small = np.maximum.reduceat(small, first_columns, axis=1)
    part = np.ix_(rows[first_rows], columns[first_columns])
    heat[part] = np.maximum(heat[part], small)
