"""What a gallery answers: who is on images, or whether they are of somebody."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

UNKNOWN = "unknown"


@dataclass(frozen=True, eq=False)
class Identified:
    """The nearest identities of M images.

    Attributes:
      candidates: str `[M, K]`, the nearest first, whatever their scores.
      scores: float64 `[M, K]`, their cosines, -1..1.
      threshold: scores below it are of nobody who is enrolled.
    """

    candidates: np.ndarray
    scores: np.ndarray
    threshold: float

    def __repr__(self) -> str:
        known = int(self.accepted.sum())
        return (
            f"Identified({len(self.scores)} images: {known} known, threshold {self.threshold:.3f})"
        )

    @property
    def accepted(self) -> np.ndarray:
        """bool `[M]`: whose nearest identity is near enough."""
        return np.asarray(self.scores[:, 0] >= self.threshold)

    @property
    def names(self) -> list[str]:
        """The nearest identity of each image, or `unknown`."""
        nearest = self.candidates[:, 0].tolist()
        return [n if ok else UNKNOWN for n, ok in zip(nearest, self.accepted, strict=True)]


@dataclass(frozen=True, eq=False)
class Verified:
    """Whether M images are of one identity.

    Attributes:
      scores: float64 `[M]`, the cosine with its template.
      threshold: scores from it on are accepted.
    """

    scores: np.ndarray
    threshold: float

    @property
    def accepted(self) -> np.ndarray:
        """bool `[M]`."""
        return np.asarray(self.scores >= self.threshold)
