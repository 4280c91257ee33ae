"""Lesions, one by one: which of them were found, and how much was flagged that is none.

A lesion is a connected component of a reference mask, a candidate one of a predicted mask; pixels
are connected also through edges and corners (8 neighbours in 2-D, 26 in 3-D).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation.mask_predictions import MaskPredictions

# From many candidates to few; a fixed grid, so that models are compared at the same points.
THRESHOLDS: tuple[float, ...] = (*(k / 20 for k in range(1, 20)), 0.99)

# False positives per image at which LUNA16 reads a curve (Setio et al. 2017).
LUNA16_RATES: tuple[float, ...] = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True, eq=False)
class LesionFigures:
    """Counts of each example, int64 `[N]` each.

    Attributes:
      lesions: components of the reference.
      found: those of them that some candidate overlaps enough.
      false_positives: candidates that overlap no lesion enough.
    """

    lesions: np.ndarray
    found: np.ndarray
    false_positives: np.ndarray


def lesion_figures(
    candidates: np.ndarray, reference: np.ndarray, overlap: float = 0.1
) -> LesionFigures:
    """Which lesions were found, and which candidates are none.

    A lesion is found if the intersection over union with one candidate is at least `overlap`. A
    candidate that reaches it with no lesion is a false positive: one that lies beside, and one
    that is far too large or small. A candidate over two lesions may find both; two candidates
    on one lesion may both be right, and find it once.

    Args:
      candidates: bool `[N, *spatial]`, what was predicted.
      reference: bool `[N, *spatial]`.
      overlap: least intersection over union, in (0, 1].

    Raises:
      EvaluationError: shapes that differ, or an overlap out of range.
    """
    candidates, reference = np.asarray(candidates, bool), np.asarray(reference, bool)
    if candidates.shape != reference.shape:
        raise EvaluationError(
            f"candidates are {list(candidates.shape)} and the reference {list(reference.shape)}: "
            "give two masks for each example"
        )
    _check_overlap(overlap)
    counts = np.array(
        [
            (lesions.max(), *_matches(*components(found), lesions, overlap))
            for found, (lesions, _) in zip(candidates, map(components, reference), strict=True)
        ],
        np.int64,
    ).reshape(-1, 3)
    return LesionFigures(*counts.T)


def components(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """int32 `[*spatial]`: the component 1..count of each pixel of a bool mask, and the count."""
    from scipy.ndimage import label  # type: ignore[attr-defined]

    labels, count = label(mask, structure=np.ones((3,) * mask.ndim, bool))
    return labels, int(count)


def _matches(
    candidates: np.ndarray, count: int, lesions: np.ndarray, overlap: float
) -> tuple[int, int]:
    """How many lesions were found, and how many candidates are false; of labelled components."""
    sizes, of_lesions = np.bincount(candidates.ravel()), np.bincount(lesions.ravel())
    both = (candidates > 0) & (lesions > 0)
    # A candidate and a lesion in one number, which sorts faster than pairs.
    pairs, shared = np.unique(
        candidates[both].astype(np.int64) * len(of_lesions) + lesions[both], return_counts=True
    )
    candidate, lesion = np.divmod(pairs, len(of_lesions))
    # Divided: 7 of 100 is 0.07, but 0.07 × 100 is more than 7 in float64.
    enough = shared / (sizes[candidate] + of_lesions[lesion] - shared) >= overlap
    return len(np.unique(lesion[enough])), count - len(np.unique(candidate[enough]))


@dataclass(frozen=True, eq=False)
class Froc:
    """Free-response operating characteristic: lesions found against false alarms per image.

    Attributes:
      thresholds: float64 `[T]`, ascending.
      sensitivity: float64 `[T]`, share of all lesions that are found at each.
      false_positives_per_image: float64 `[T]`.
      lesions, images: how many there are of each.
    """

    thresholds: np.ndarray
    sensitivity: np.ndarray
    false_positives_per_image: np.ndarray
    lesions: int
    images: int

    def at(self, fp_per_image: float) -> float:
        """The highest sensitivity at a threshold with no more false positives per image.

        0 where no threshold has so few. Nothing is interpolated: it can be had.
        """
        allowed = self.false_positives_per_image <= fp_per_image
        return float(self.sensitivity[allowed].max(initial=0.0))

    def score(self) -> float:
        """Mean of `at` 1/8, 1/4, 1/2, 1, 2, 4 and 8 (LUNA16; Setio et al. 2017).

        LUNA16 counts as found what lies within a nodule's radius of its centre; here it is what
        overlaps, so the two scores do not compare.
        """
        return float(np.mean([self.at(rate) for rate in LUNA16_RATES]))


def froc(
    predictions: MaskPredictions,
    region: int = 1,
    thresholds: Sequence[float] | np.ndarray | None = None,
    overlap: float = 0.1,
) -> Froc:
    """The FROC curve of one region; candidates at t are the components of p >= t.

    What counts as found and as false is said in `lesion_figures`. Sensitivity need not fall as
    the threshold rises: a candidate that shrinks to its lesion may only then overlap enough.

    Args:
      predictions: of every example of the split.
      region: 1..R - 1, whose components are the lesions.
      thresholds: `[T]`, in (0, 1]; None for 0.05, 0.1, .. 0.95 and 0.99.
      overlap: least intersection over union, in (0, 1].

    Raises:
      EvaluationError: no lesion in any example, or a region, threshold or overlap out of range.
    """
    from scipy.ndimage import find_objects  # type: ignore[attr-defined]

    if not 1 <= region < len(predictions.regions):
        raise EvaluationError(
            f"region {region} has no lesions: choose one of 1..{len(predictions.regions) - 1}"
        )
    t = np.unique(np.asarray(THRESHOLDS if thresholds is None else thresholds, np.float64))
    if not len(t) or not ((t > 0) & (t <= 1)).all():
        raise EvaluationError("thresholds of a FROC curve are above 0 and at most 1")
    _check_overlap(overlap)
    lesions, found, false = 0, np.zeros(len(t)), np.zeros(len(t))
    for mask, p in zip(predictions.masks, predictions.probabilities, strict=True):
        # In float64: a threshold is not rounded to the probabilities' type.
        probability = p[..., region - 1].astype(np.float64)
        boxes = find_objects(((mask == region) | (probability >= t[0])).astype(np.int8))
        if not boxes:
            continue  # neither a lesion nor a candidate
        labels, count = components(mask[boxes[0]] == region)
        lesions += count
        for k, threshold in enumerate(t):
            matches = _matches(*components(probability[boxes[0]] >= threshold), labels, overlap)
            found[k] += matches[0]
            false[k] += matches[1]
    if lesions == 0:
        raise EvaluationError(
            f"no example of {predictions.split!r} has a lesion of {predictions.regions[region]!r}: "
            "a share of no lesions is undefined"
        )
    return Froc(t, found / lesions, false / len(predictions), lesions, len(predictions))


def _check_overlap(overlap: float) -> None:
    if not 0 < overlap <= 1:
        raise EvaluationError(f"an overlap is above 0 and at most 1, not {overlap}")
