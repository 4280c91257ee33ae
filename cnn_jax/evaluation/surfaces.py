"""How far the boundaries of two masks lie apart: Hausdorff distance and surface Dice.

What is missing is never dropped. Two empty masks agree: distance 0, surface Dice 1. Of one empty
mask the other is as far as the image reaches, its diagonal sqrt(Σ (n_i spacing_i)²), and surface
Dice is 0; no two pixels are that far apart, so that to predict nothing is never better.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation.mask_predictions import check_spacing


def boundary(mask: np.ndarray) -> np.ndarray:
    """The pixels of a mask that touch its outside through a face (4 or 6 neighbours).

    Pixels at the border of the image count: beyond it lies the outside.

    Args:
      mask: bool `[*spatial]`.

    Returns:
      bool `[*spatial]`.
    """
    from scipy.ndimage import binary_erosion  # type: ignore[attr-defined]

    mask = np.asarray(mask, bool)
    return mask & ~binary_erosion(mask)


def surface_distances(
    a: np.ndarray, b: np.ndarray, spacing: Sequence[float] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """How far each boundary pixel of one mask is from the nearest one of the other.

    Args:
      a, b: bool `[*spatial]`.
      spacing: from pixel to pixel along each axis; None for 1.

    Returns:
      float64 `[pixels of a's boundary]`: their distances to b's boundary, and float64 `[pixels
      of b's boundary]`: theirs to a's, in the unit of the spacing. Where one mask is empty, the
      distances to it are the diagonal of the image; an empty mask has no boundary pixels.

    Raises:
      EvaluationError: shapes that differ, or a spacing that does not fit.
    """
    from scipy.ndimage import distance_transform_edt, find_objects  # type: ignore[attr-defined]

    a, b = np.asarray(a, bool), np.asarray(b, bool)
    if a.shape != b.shape:
        raise EvaluationError(
            f"the masks are {list(a.shape)} and {list(b.shape)}: give two of one image"
        )
    check_spacing(spacing, a.ndim)
    steps = np.ones(a.ndim) if spacing is None else np.asarray(spacing, np.float64)
    if not a.any() or not b.any():
        diagonal = math.sqrt(float(((np.array(a.shape) * steps) ** 2).sum()))
        return np.full(boundary(a).sum(), diagonal), np.full(boundary(b).sum(), diagonal)
    # Outside the box around both there is nothing of either, and so no boundary that is nearer.
    box = find_objects((a | b).astype(np.int8))[0]
    edge_a, edge_b = boundary(a[box]), boundary(b[box])
    to_a = distance_transform_edt(~edge_a, sampling=steps)
    to_b = distance_transform_edt(~edge_b, sampling=steps)
    return to_b[edge_a], to_a[edge_b]


def hausdorff(
    a: np.ndarray,
    b: np.ndarray,
    spacing: Sequence[float] | None = None,
    percentile: float = 95.0,
) -> float:
    """The larger of the two directions' percentiles of surface distances; symmetric.

    At 100 the Hausdorff distance; at 95 the robust one of the field (HD95). Percentiles are
    interpolated linearly. Both masks empty: 0. One empty: the diagonal of the image.

    Args:
      a, b: bool `[*spatial]`.
      spacing: from pixel to pixel along each axis; None for pixels.
      percentile: of each direction, 0..100.

    Returns:
      The distance, in the unit of the spacing.

    Raises:
      EvaluationError: shapes that differ, a spacing that does not fit, or a percentile out of
        range.
    """
    return largest_percentile(surface_distances(a, b, spacing), percentile)


def normalised_surface_dice(
    a: np.ndarray,
    b: np.ndarray,
    spacing: Sequence[float] | None = None,
    tolerance: float = 2.0,
) -> float:
    """The share of both boundaries that lies within a tolerance of the other; symmetric.

    Nikolov et al. (2018; 2021), who weigh each piece of boundary by its area from marching
    cubes. Here every boundary pixel counts the same. Both masks empty: 1. One empty: 0, however
    large the tolerance.

    Args:
      a, b: bool `[*spatial]`.
      spacing: from pixel to pixel along each axis; None for pixels.
      tolerance: distance that is as good as none, in the unit of the spacing.

    Returns:
      The share, 0..1.

    Raises:
      EvaluationError: shapes that differ, a spacing that does not fit, or a negative tolerance.
    """
    return share_within(surface_distances(a, b, spacing), tolerance)


def largest_percentile(distances: tuple[np.ndarray, np.ndarray], percentile: float = 95.0) -> float:
    """`hausdorff` of what `surface_distances` returned.

    Raises:
      EvaluationError: the percentile is out of range.
    """
    if not 0 <= percentile <= 100:
        raise EvaluationError(f"a percentile lies in 0..100, not at {percentile}")
    return max((float(np.percentile(d, percentile)) for d in distances if len(d)), default=0.0)


def share_within(distances: tuple[np.ndarray, np.ndarray], tolerance: float) -> float:
    """`normalised_surface_dice` of what `surface_distances` returned.

    Raises:
      EvaluationError: the tolerance is negative or not finite.
    """
    if not 0 <= tolerance < math.inf:
        raise EvaluationError(f"a tolerance is a distance of 0 or more, not {tolerance}")
    total = sum(map(len, distances))
    if total == 0:
        return 1.0
    if min(map(len, distances)) == 0:
        return 0.0
    # Three steps of 0.1 are 0.3, whatever float64 makes of them.
    within = sum(int((d <= tolerance * (1 + 1e-9)).sum()) for d in distances)
    return within / total
