"""Detectors on one feature vector per image: how far it lies from those of normal images.

They are fitted on normal images only, never see an anomalous one, and give a score, higher for
what is more anomalous. A threshold comes from `decision.fit_alarm`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from cnn_jax.anomaly.inputs import check_features
from cnn_jax.anomaly.neighbours import nearest
from cnn_jax.errors import DataError


class Detector(Protocol):
    """What says how anomalous images are."""

    def score(self, features: Any, /) -> np.ndarray:
        """float64 `[M]`, higher for what is more anomalous."""
        ...


@dataclass(frozen=True, eq=False)
class Mahalanobis:
    """The distance from the mean of normal images, in standard deviations of each direction.

    Attributes:
      mean: float64 `[D]`.
      factor: float64 `[D, D]`, lower triangular, L of the covariance L Lᵀ after shrinkage.
      shrinkage: 0..1, how much of the covariance is a multiple of the identity.
    """

    mean: np.ndarray
    factor: np.ndarray
    shrinkage: float

    def score(self, features: Any, /) -> np.ndarray:
        """sqrt((x - μ)ᵀ Σ⁻¹ (x - μ)) of features `[M, D]`, float64 `[M]`.

        Lee et al. (2018, eq. 2) with one Gaussian for all that is normal; they take its square,
        which ranks alike.

        Raises:
          DataError: another number of channels, or features that are not finite.
        """
        from scipy.linalg import solve_triangular

        x = check_features(features, "the images to score", len(self.mean)) - self.mean
        white = solve_triangular(self.factor, x.T, lower=True, check_finite=False)
        return np.sqrt(np.einsum("dm,dm->m", white, white))


def fit_mahalanobis(features: Any) -> Mahalanobis:
    """A Gaussian on features of normal images, its covariance shrunk as far as they are few.

    With S = XᵀX / N of the centred features, m = tr(S) / D and
    Σ = (1 - ρ) S + ρ m I, the ρ that is expected to come nearest to the true covariance (Ledoit
    and Wolf 2004, §3.3): ρ = min(b, d) / d with d = ||S - m I||² / D and
    b = (Σ_n ||x_n||⁴ / N - ||S||²) / (N D). There are then no directions without variance, so
    that D may exceed N.

    Args:
      features: floating `[N, D]` of normal images, N >= 2.

    Raises:
      DataError: features that are not finite, the same in all images, or of so few images that
        they do not vary in some direction.
    """
    x = check_features(features, "the normal images").astype(np.float64)
    n, dimensions = x.shape
    _check_varied(x)
    mean = x.mean(axis=0)
    x -= mean
    covariance = x.T @ x / n
    average = float(np.trace(covariance)) / dimensions
    squared = float((covariance**2).sum())
    lengths = np.einsum("nd,nd->n", x, x)
    spread = float((lengths**2).sum()) / n
    distance = squared - dimensions * average**2  # d, and below b, times D
    error = min((spread - squared) / n, distance)
    shrinkage = max(error / distance, 0.0) if distance > 0 else 0.0
    covariance *= 1 - shrinkage
    covariance[np.diag_indices(dimensions)] += shrinkage * average
    try:
        factor = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        factor = np.zeros((1, 1))
    # Two images lie on a line and leave nothing to shrink towards: what is no more than rounding
    # would be divided by.
    if factor.diagonal().min() <= 1e-8 * factor.diagonal().max():
        raise DataError(
            f"features of the {n} normal images do not vary in some direction: give more images"
        )
    return Mahalanobis(mean, factor, shrinkage)


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The mean distance to the k nearest normal images.

    Attributes:
      references: float `[N, D]`, the features of normal images.
      k: how many of them.
      unit_length: whether features are divided by their length, so that only directions count.
    """

    references: np.ndarray
    k: int
    unit_length: bool

    def score(self, features: Any, /) -> np.ndarray:
        """Mean Euclidean distance to the k nearest references, float64 `[M]`; exact.

        Images that are themselves among the references have themselves as their nearest.

        Raises:
          DataError: another number of channels, or features that are not finite.
        """
        x = check_features(features, "the images to score", self.references.shape[1])
        x = _of_unit_length(x) if self.unit_length else x
        return nearest(x, self.references, self.k)[0].mean(axis=1)


def fit_neighbours(features: Any, *, k: int = 5, unit_length: bool = False) -> Neighbours:
    """Remember the features of normal images (Angiulli and Pizzuti 2002).

    Deep features are often compared at unit length (Sun et al. 2022, who take the k-th distance
    alone).

    Args:
      features: floating `[N, D]` of normal images.
      k: over how many neighbours the distance is averaged, 1..N.
      unit_length: divide features by their Euclidean length; zeros stay zeros.

    Raises:
      DataError: features that are not finite, or k out of range.
    """
    x = check_features(features, "the normal images")
    if not 1 <= k <= len(x):
        raise DataError(f"k = {k} neighbours of {len(x)} normal images: take 1..{len(x)}")
    return Neighbours(_of_unit_length(x) if unit_length else x, k, unit_length)


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """The distance from the plane in which normal images vary.

    Attributes:
      mean: float64 `[D]`.
      directions: float64 `[C, D]`, orthonormal, of the largest variance first.
      kept: share of the variance that they hold.
    """

    mean: np.ndarray
    directions: np.ndarray
    kept: float

    def score(self, features: Any, /) -> np.ndarray:
        """||(x - μ) - V Vᵀ (x - μ)|| of features `[M, D]`, float64 `[M]`.

        Raises:
          DataError: another number of channels, or features that are not finite.
        """
        x = check_features(features, "the images to score", len(self.mean)) - self.mean
        x -= (x @ self.directions.T) @ self.directions
        return np.sqrt(np.einsum("md,md->m", x, x))


def fit_reconstruction(features: Any, *, variance: float = 0.95) -> Reconstruction:
    """Principal components that hold more than a share of the variance: the plain baseline.

    Args:
      features: floating `[N, D]` of normal images, N >= 2.
      variance: the fewest components are kept whose share exceeds this, strictly between 0
        and 1.

    Raises:
      DataError: features that are not finite or the same in all images, a share out of range,
        or one so large that all D directions are kept and nothing is left to score by.
    """
    x = check_features(features, "the normal images").astype(np.float64)
    n, dimensions = x.shape
    _check_varied(x)
    if not 0 < variance < 1:
        raise DataError(f"a share of the variance lies between 0 and 1, not at {variance}")
    mean = x.mean(axis=0)
    _, values, directions = np.linalg.svd(x - mean, full_matrices=False)
    shares = np.cumsum(values**2)
    shares /= shares[-1]
    count = min(int(np.searchsorted(shares, variance, side="right")) + 1, len(values))
    if count == dimensions:
        raise DataError(
            f"more than {variance:g} of the variance of {n} normal images takes all {dimensions} "
            "directions, so that every image is reconstructed: keep a smaller share"
        )
    return Reconstruction(mean, directions[:count], float(shares[count - 1]))


def _check_varied(x: np.ndarray) -> None:
    if (x == x[0]).all():
        many = "the one normal image shows" if len(x) == 1 else f"all {len(x)} normal images show"
        raise DataError(f"{many} the same features, and nothing of how they vary: give others")


def _of_unit_length(x: np.ndarray) -> np.ndarray:
    """float64 `[N, D]`."""
    # Divided by the largest first, whose square neither overflows nor vanishes.
    largest = np.abs(x).max(axis=1, keepdims=True).astype(np.float64)
    x = np.divide(x, largest, out=np.zeros(x.shape), where=largest > 0)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return np.divide(x, length, out=x, where=length > 0)
