"""Images with planted evidence: one patch tells the class, another only draws the eye.

Each image is coloured noise. One square is striped, and the direction of the stripes is the class;
another square has a checkerboard of the same contrast, whatever the class. Both lie anywhere, apart
from each other. Where the evidence is is known, so that a map can be held against it.
"""

from __future__ import annotations

import numpy as np

from cnn_jax import data
from cnn_jax.data import Dataset
from cnn_jax.errors import DataError

SIDE, PATCH = 32, 8
CLASSES = ("upright", "level", "falling", "rising")


def stripes(label: int, side: int = PATCH) -> np.ndarray:
    """float64 `[side, side]`, -1 or 1: stripes two pixels wide, in the direction of a class."""
    y, x = np.mgrid[:side, :side]
    across = (x, y, x - y, x + y)[label]
    return np.where(across // 2 % 2 == 0, 1.0, -1.0)


def checkerboard(side: int = PATCH) -> np.ndarray:
    """float64 `[side, side]`, -1 or 1: squares of two pixels."""
    y, x = np.mgrid[:side, :side]
    return np.where((x // 2 + y // 2) % 2 == 0, 1.0, -1.0)


def images(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """uint8 `[N, 32, 32, 3]`, classes int `[N]`, and where the evidence is, bool `[N, 32, 32]`.

    Raises:
      DataError: no images.
    """
    if count < 1:
        raise DataError(f"{count} images cannot be made: one at least")
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % len(CLASSES)
    rng.shuffle(labels)
    pixels = rng.normal(128, 30, (count, SIDE, SIDE, 3))
    evidence = np.zeros((count, SIDE, SIDE), bool)
    for image, label, where in zip(pixels, labels, evidence, strict=True):
        (top, left), (other_top, other_left) = _places(rng)
        shape = (PATCH, PATCH, 1)
        colour, other = (rng.uniform(0.4, 1, 3) for _ in range(2))
        image[top : top + PATCH, left : left + PATCH] += (
            70 * stripes(int(label)).reshape(shape) * colour
        )
        image[other_top : other_top + PATCH, other_left : other_left + PATCH] += (
            70 * checkerboard().reshape(shape) * other
        )
        where[top : top + PATCH, left : left + PATCH] = True
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8), labels, evidence


def load(seed: int = 0, train: int = 3000, others: int = 400) -> Dataset:
    """The data set, each part drawn with a seed of its own; `others` of validation and of test."""
    parts = [images(count, 10 * seed + k)[:2] for k, count in enumerate((train, others, others))]
    return data.from_arrays(
        *parts[0], validation=parts[1], test=parts[2], classes=CLASSES, name="planted"
    )


def evidence_of_test(seed: int = 0, others: int = 400) -> np.ndarray:
    """bool `[N, 32, 32]`: where the evidence is in the test images of `load`."""
    return images(others, 10 * seed + 2)[2]


def _places(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Corners of two squares that do not touch."""
    while True:
        one, other = rng.integers(0, SIDE - PATCH + 1, (2, 2))
        if np.abs(one - other).max() > PATCH:
            return one, other
