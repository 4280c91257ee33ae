"""Pictures too large to look at in one piece: windows of them, at their own resolution."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from cnn_jax.data.decode import opened_image, to_mode, upright
from cnn_jax.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

# Of one picture: 1 GB in grey, 4 GB in colour, as Pillow holds it.
MOST_PIXELS = 10**9


class LargePicture:
    """A decoded picture, of which windows are asked for.

    Attributes:
      height, width: in pixels, upright.
    """

    def __init__(self, picture: PillowImage, channels: int, name: str) -> None:
        self._picture, self._channels, self._name = picture, channels, name
        self.width, self.height = picture.size

    def window(self, top: int, left: int, size: int) -> np.ndarray:
        """uint8 `[size, size, C]`: a square; where the picture ends its border is repeated."""
        box = (left, top, min(left + size, self.width), min(top + size, self.height))
        part = np.asarray(to_mode(self._picture.crop(box), self._channels, self._name), np.uint8)
        part = part.reshape(part.shape[0], part.shape[1], self._channels)
        missing = (size - part.shape[0], size - part.shape[1])
        if missing == (0, 0):
            return part
        return np.pad(part, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")

    def reduced(self, longest: int) -> np.ndarray:
        """uint8 `[h, w, C]`: the whole, its longer side at most `longest` pixels."""
        from PIL import Image

        scale = min(1.0, longest / max(self.height, self.width))
        size = (max(1, round(scale * self.width)), max(1, round(scale * self.height)))
        # Other modes cannot be averaged as they are, and converted the whole would be held twice.
        smooth = self._picture.mode in ("L", "RGB")
        how = Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST
        small = self._picture.resize(size, how, reducing_gap=2.0)
        pixels = np.asarray(to_mode(small, self._channels, self._name), np.uint8)
        return pixels.reshape(size[1], size[0], self._channels)


@contextmanager
def large_picture(
    path: str | os.PathLike[str], channels: int, most_pixels: int = MOST_PIXELS
) -> Iterator[LargePicture]:
    """A picture file of up to `most_pixels`, decoded once and held as Pillow holds it.

    That is a byte a pixel in grey and four in colour; nothing else is as large. Pillow's own
    limit against decompression bombs is lifted for this file alone, which should be trusted
    accordingly; it is not for several threads at a time.

    Args:
      path: of the file.
      channels: 1 or 3, of windows.
      most_pixels: height times width, beyond which it is refused from its header.

    Raises:
      DataError: not an image, damaged, or larger than that.
    """
    with opened_image(path, most_pixels) as opened:
        try:
            opened.load()
        except MemoryError as error:
            raise DataError(
                f"{os.fspath(path)!r} has {opened.width}×{opened.height} pixels, for which there "
                "is no memory"
            ) from error
        yield LargePicture(upright(opened), channels, os.fspath(path))
