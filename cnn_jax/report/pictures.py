"""Arrays as PNG pictures inside the page."""

from __future__ import annotations

import base64
import io

import numpy as np

LONGEST_SIDE = 256
SMALL_IMAGE = 64  # below it, pixels are shown as squares
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


def viewable(image: np.ndarray) -> np.ndarray:
    """An example of any kind as uint8 `[H, W, C]`: of a volume the middle slice.

    Args:
      image: uint8, or float32 in 0..1, `[H, W, C]` or `[D, H, W, C]`.
    """
    if image.ndim == 4:
        image = image[image.shape[0] // 2]
    if image.dtype != np.uint8:
        image = (np.clip(image, 0, 1) * 255).round().astype(np.uint8)
    return image


def fullest_slice(*masks: np.ndarray) -> int:
    """Of masks `[D, H, W]` of one volume the slice in which most is marked by any of them."""
    marked = np.logical_or.reduce([mask > 0 for mask in masks])
    return int(marked.sum(axis=(1, 2)).argmax())


def grey_or_colour(image: np.ndarray) -> np.ndarray:
    """uint8 `[H, W]` or `[H, W, 3]`: what a PNG can hold of uint8 `[H, W, C]`.

    One channel is grey, three are red, green and blue; of any other number the mean over the
    channels is shown.
    """
    if image.shape[2] == 3:
        return image
    return np.asarray(np.round(image.mean(axis=2)), np.uint8)


def thumbnail(image: np.ndarray, longest: int = LONGEST_SIDE) -> np.ndarray:
    """An example as pixels for the page, its longer side at most `longest`.

    Args:
      image: uint8 `[H, W, C]`, shown as `grey_or_colour` says.
      longest: pixels.

    Returns:
      uint8 `[h, w]` or `[h, w, 3]`; pixel for pixel if the image is small enough.
    """
    from PIL import Image

    pixels = grey_or_colour(image)
    if max(pixels.shape[:2]) <= longest:
        return pixels
    picture = Image.fromarray(pixels)
    picture.thumbnail((longest, longest))
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
