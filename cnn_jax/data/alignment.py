"""Bringing a face to the place where recognition networks expect it, by five landmarks.

Where the landmarks come from is not our business: a detector gives them, or a person.
"""

from __future__ import annotations

import numpy as np

from cnn_jax.errors import DataError

ALIGNED_SIZE = 112  # pixels, height and width

# Where eyes, tip of the nose and corners of the mouth come to lie in 112 x 112 pixels, (x, y),
# left in the image first: the template of insightface, which all of its networks know.
TEMPLATE = (
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)

# Landmarks closer together than this share of their distance from the origin have no direction,
# and what is left of one after rounding is no rotation.
_NO_SPREAD = 1e-9


def align_face(image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """The face at the template, `[112, 112, C]`, in the dtype of the image.

    The similarity that fits best turns, scales and shifts the image; pixels are interpolated
    bilinearly, and what lies outside of the image is 0, as `cv2.warpAffine` has it.

    Args:
      image: uint8 or float32 `[H, W, C]`.
      landmarks: `[5, 2]`, x and y in pixels, (0, 0) the centre of the first: the eye on the left
        of the image, the one on the right, the tip of the nose, and the corners of the mouth,
        left and right.

    Raises:
      DataError: an image of another kind, or as `similarity_transform`.
    """
    if image.ndim != 3 or image.dtype not in (np.uint8, np.float32) or not image.size:
        raise DataError(
            f"a face is uint8 or float32 [H, W, C], not {image.dtype} {list(image.shape)}"
        )
    if np.shape(landmarks) != (len(TEMPLATE), 2):
        raise DataError(f"landmarks must be [5, 2], x and y, not {list(np.shape(landmarks))}")
    # Straight from the template to the image: where each pixel of the result is read.
    a, b = _inverse(similarity_transform(landmarks, np.array(TEMPLATE)))
    y, x = np.mgrid[:ALIGNED_SIZE, :ALIGNED_SIZE]
    at = a * (x + 1j * y) + b
    values = _bilinear(image.astype(np.float64), at.imag, at.real)
    if image.dtype == np.uint8:
        return np.rint(values).astype(np.uint8)
    return values.astype(np.float32)


def similarity_transform(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """float64 `[2, 3]`, M = [s R | t]: the similarity with the least sum of squares.

    Minimises sum_i |s R x_i + t - y_i|^2 over scales s > 0, rotations R and shifts t (Umeyama
    1991, "Least-squares estimation of transformation parameters between two point patterns", eq.
    40-42). R is never a reflection, even where one would fit better: landmarks whose left and
    right are swapped give a face that fits badly, not a mirrored one.

    Args:
      source: `[n, 2]`, x and y of two points or more.
      target: `[n, 2]`, where they should come to lie.

    Raises:
      DataError: points of other shapes or not finite, all in one place, or without any rotation
        that fits better than another.
    """
    x, y = _complex(source), _complex(target)
    if len(x) != len(y) or len(x) < 2:
        raise DataError(f"{len(x)} points cannot be brought to {len(y)}: two pairs or more")
    # A rotation with a scale is one complex factor in the plane; a reflection is not. The least
    # squares are those of a line through the origin.
    from_mean, to_mean = x - x.mean(), y - y.mean()
    spread, spread_to = np.linalg.norm(from_mean), np.linalg.norm(to_mean)
    if spread <= _NO_SPREAD * np.abs(x).max() or spread_to <= _NO_SPREAD * np.abs(y).max():
        raise DataError("landmarks that all lie in one place say nothing of size and direction")
    # Of unit length, so that no square overflows.
    turn = np.vdot(from_mean / spread, to_mean / spread_to)
    if np.abs(turn) <= _NO_SPREAD:
        raise DataError(
            "these landmarks fit no direction better than another: look at their order (eyes, "
            "nose, corners of the mouth; left in the image first)"
        )
    a = turn * (spread_to / spread)
    b = y.mean() - a * x.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def _complex(points: np.ndarray) -> np.ndarray:
    """complex128 `[n]`: x + iy."""
    points = np.asarray(points, np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
        raise DataError(f"points must be finite and [n, 2], x and y, not {list(points.shape)}")
    return points[:, 0] + 1j * points[:, 1]


def _inverse(transform: np.ndarray) -> tuple[complex, complex]:
    """(c, d) with z = c w + d where w = a z + b is the similarity."""
    a, b = complex(*transform[:, 0]), complex(*transform[:, 2])
    return 1 / a, -b / a


def _bilinear(image: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """float64 `[h, w, C]`: values of `[H, W, C]` between the pixels; 0 outside."""
    height, width, _ = image.shape
    # A margin of black: whatever is read further out is read there.
    margin = np.pad(image, ((1, 2), (1, 2), (0, 0)))
    rows, columns = np.clip(rows, -1, height) + 1, np.clip(columns, -1, width) + 1
    top, left = np.floor(rows).astype(np.int64), np.floor(columns).astype(np.int64)
    down, right = (rows - top)[..., None], (columns - left)[..., None]
    upper = (1 - right) * margin[top, left] + right * margin[top, left + 1]
    lower = (1 - right) * margin[top + 1, left] + right * margin[top + 1, left + 1]
    return (1 - down) * upper + down * lower
