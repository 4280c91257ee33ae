"""Heat maps on images, in colours that all eyes tell apart by their lightness alone."""

from __future__ import annotations

import numpy as np

from cnn_jax.report import pictures

# From little to most: vermilion to yellow (Okabe and Ito), which also grows lighter.
_LITTLE, _MOST = np.array([213.0, 94.0, 0.0]), np.array([240.0, 228.0, 66.0])
_OPACITY = 0.75  # where the heat is greatest; none where it is 0


def enlarged(image: np.ndarray, longest: int = pictures.LONGEST_SIDE) -> np.ndarray:
    """uint8 `[h, w]` or `[h, w, 3]`: an image whose longer side is `longest`, small pixels square.

    Args:
      image: uint8 `[H, W, C]`.
      longest: pixels.
    """
    from PIL import Image

    pixels = pictures.grey_or_colour(image)
    size = _size(image, longest)
    how = Image.Resampling.LANCZOS
    if max(pixels.shape[:2]) < pictures.SMALL_IMAGE:
        how = Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(pixels).resize(size, how))


def overlaid(
    image: np.ndarray, heat: np.ndarray, longest: int = pictures.LONGEST_SIDE
) -> np.ndarray:
    """uint8 `[h, w, 3]`: the image in grey, and on it the heat as a share of its largest value.

    Args:
      image: uint8 `[H, W, C]`.
      heat: float `[H, W]`, 0 or more, with a value above 0.
      longest: pixels of the longer side.
    """
    from PIL import Image

    grey = np.asarray(Image.fromarray(enlarged(image, longest)).convert("L"), np.float64)
    share = Image.fromarray(np.asarray(heat / heat.max(), np.float32))
    smooth = share.resize(_size(image, longest), Image.Resampling.BILINEAR)
    return _mixed(grey, np.asarray(smooth, np.float64).clip(0, 1))


def legend() -> np.ndarray:
    """uint8 `[12, 160, 3]`: the colours on mid-grey, from no heat to most."""
    return _mixed(np.full((12, 160), 110.0), np.tile(np.linspace(0, 1, 160), (12, 1)))


def _mixed(grey: np.ndarray, share: np.ndarray) -> np.ndarray:
    share = share[..., np.newaxis]
    colour = _LITTLE + share * (_MOST - _LITTLE)
    opacity = _OPACITY * share
    return np.asarray(np.round((1 - opacity) * grey[..., np.newaxis] + opacity * colour), np.uint8)


def _size(image: np.ndarray, longest: int) -> tuple[int, int]:
    """Width and height."""
    height, width = image.shape[:2]
    scale = longest / max(height, width)
    return max(1, round(scale * width)), max(1, round(scale * height))
