"""Arrays as PNG pictures inside the page."""

from __future__ import annotations

import base64
import io

import numpy as np

LONGEST_SIDE = 256
SHOWN_FILTERS = 64


def data_uri(pixels: np.ndarray) -> str:
    """A PNG as `data:image/png;base64,...`.

    Args:
      pixels: uint8 `[H, W]`, `[H, W, 3]` or, with opacity, `[H, W, 4]`.
    """
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def thumbnail(image: np.ndarray) -> np.ndarray:
    """An example as pixels for the page, its longer side at most `LONGEST_SIDE`.

    Args:
      image: uint8 `[H, W, C]`. One channel is grey, three are red, green and blue; of any
        other number the mean over the channels is shown.

    Returns:
      uint8 `[h, w]` or `[h, w, 3]`; pixel for pixel if the image is small enough.
    """
    from PIL import Image

    if image.shape[2] == 3:
        pixels = image
    else:
        pixels = np.round(image.mean(axis=2)).astype(np.uint8)
    if max(pixels.shape[:2]) <= LONGEST_SIDE:
        return pixels
    picture = Image.fromarray(pixels)
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return np.asarray(picture)


def filter_grid(filters: np.ndarray) -> np.ndarray:
    """The first filters side by side, one pixel apart, as near to a square as two to one.

    Each filter has its own scale. With one or three input channels mid-grey is a weight of
    zero and the largest weight is black or white; otherwise the norm over the input
    channels is shown, from black (zero) to white.

    Args:
      filters: float `[h, w, in, out]`; at most `SHOWN_FILTERS` are shown.

    Returns:
      uint8 `[H, W, 4]`; the gaps are transparent.
    """
    weights = np.nan_to_num(np.asarray(filters, dtype=np.float64)[..., :SHOWN_FILTERS])
    height, width, channels, count = weights.shape
    if channels in (1, 3):
        largest = np.abs(weights).max(axis=(0, 1, 2))
        shade = 0.5 + weights / (2 * np.where(largest > 0, largest, 1))
    else:
        norm = np.linalg.norm(weights, axis=2, keepdims=True)
        largest = norm.max(axis=(0, 1, 2))
        shade = norm / np.where(largest > 0, largest, 1)
    columns = min(count, max(1, int(np.ceil(np.sqrt(2 * count)))))
    rows = -(-count // columns)
    grid = np.zeros((rows * (height + 1) - 1, columns * (width + 1) - 1, 4), np.uint8)
    for k in range(count):
        top, left = (k // columns) * (height + 1), (k % columns) * (width + 1)
        tile = grid[top : top + height, left : left + width]
        tile[..., :3] = np.round(255 * shade[..., k])
        tile[..., 3] = 255
    return grid
