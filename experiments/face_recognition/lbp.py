"""Local binary patterns with a learned metric: what is known of faces without a network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh

# Radius of the ring and side of the cells, in pixels; cells begin every 14 pixels.
_RINGS = ((2, 14), (4, 18))
_STEP = 14
_COMPONENTS = (100, 200, 400)
_DIRECTIONS = (50, 100)


def patterns(grey: np.ndarray, radius: int) -> np.ndarray:
    """Uniform patterns of eight neighbours (Ojala, Pietikäinen and Mäenpää 2002), 0 to 58.

    Bit i says whether neighbour i, on a ring around the pixel and rounded to whole pixels, is at
    least as bright. Codes with at most two changes around the ring have a number each; 58 is all
    others.

    Args:
      grey: `[N, H, W]`.
      radius: of the ring, in pixels.

    Returns:
      uint8 `[N, H - 2 radius, W - 2 radius]`.
    """
    _, height, width = grey.shape
    rows, columns = height - 2 * radius, width - 2 * radius
    centre = grey[:, radius : radius + rows, radius : radius + columns]
    codes = np.zeros(centre.shape, np.uint8)
    for bit, angle in enumerate(np.arange(8) * np.pi / 4):
        y, x = (radius + np.rint(radius * np.array([np.sin(angle), np.cos(angle)]))).astype(int)
        codes |= (grey[:, y : y + rows, x : x + columns] >= centre).astype(np.uint8) << bit
    return _uniform()[codes]


def _uniform() -> np.ndarray:
    bits = (np.arange(256)[:, np.newaxis] >> np.arange(8)) & 1
    simple = (bits != np.roll(bits, 1, axis=1)).sum(axis=1) <= 2
    return np.where(simple, np.cumsum(simple) - 1, simple.sum()).astype(np.uint8)


def histograms(images: np.ndarray) -> np.ndarray:
    """float32 `[N, F]`: square roots of the shares of each pattern in each cell of a grid.

    Args:
      images: uint8 `[N, H, W, 3]`.
    """
    grey = images @ np.array([0.299, 0.587, 0.114], np.float32)
    return np.concatenate(list(_cells(grey)), axis=1)


def _cells(grey: np.ndarray) -> Iterator[np.ndarray]:
    n = len(grey)
    for radius, side in _RINGS:
        codes = patterns(grey, radius).astype(np.int64) + 59 * np.arange(n)[:, None, None]
        for top in range(0, codes.shape[1] - side + 1, _STEP):
            for left in range(0, codes.shape[2] - side + 1, _STEP):
                cell = codes[:, top : top + side, left : left + side].ravel()
                counts = np.bincount(cell, minlength=59 * n).reshape(n, 59)
                yield np.sqrt(counts / side**2).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Metric:
    """Principal components, whitened, and of these the directions in which people vary least.

    Attributes:
      mean: `[F]`.
      project: `[F, D]`; the cosine of two projected histograms says how alike they are.
    """

    mean: np.ndarray
    project: np.ndarray

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """float64 `[N, D]`."""
        return (features - self.mean) @ self.project


def metrics(features: np.ndarray, people: np.ndarray) -> Mapping[tuple[int, int], Metric]:
    """By numbers of components and of directions; linear discriminant analysis of few images.

    The covariance within people is that of those with two images or more.

    Args:
      features: `[N, F]`, of the images to learn from.
      people: `[N]`.
    """
    mean = features.mean(axis=0, dtype=np.float64)
    centred = features - mean
    size = features.shape[1]
    values, vectors = eigh(
        centred.T @ centred / len(features), subset_by_index=[size - max(_COMPONENTS), size - 1]
    )
    whitened = vectors[:, ::-1] / np.sqrt(values[::-1])
    _, person, count = np.unique(people, return_inverse=True, return_counts=True)
    found = {}
    for components in _COMPONENTS:
        known = centred @ whitened[:, :components]
        sums = np.zeros((len(count), components))
        np.add.at(sums, person, known)
        left = (known - sums[person] / count[person][:, None])[count[person] > 1]
        within, directions = np.linalg.eigh(left.T @ left / (len(left) - (count > 1).sum()))
        for number in _DIRECTIONS:
            kept = directions[:, :number] / np.sqrt(within[:number])
            found[components, number] = Metric(mean, whitened[:, :components] @ kept)
    return found
