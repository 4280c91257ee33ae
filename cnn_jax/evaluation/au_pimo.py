"""Per-image overlap at very few false positives: how much of each anomaly is found (AU-PIMO)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation.anomaly_maps import check_maps
from cnn_jax.evaluation.estimate import Estimate
from cnn_jax.evaluation.intervals import add_note, bootstrap
from cnn_jax.evaluation.weighted import ratio

# Between which rates of false positives the paper integrates.
FPR_BOUNDS = (1e-5, 1e-4)


@dataclass(frozen=True, eq=False)
class PerImageOverlap:
    """AU-PIMO of each image with an anomaly, and their mean.

    Attributes:
      images: int64 `[A]`, positions of the images that have a marked pixel.
      values: float64 `[A]`, in 0..1, of each; their distribution says more than the mean does.
      mean: with its interval; `n` counts these images.
    """

    images: np.ndarray
    values: np.ndarray
    mean: Estimate


def au_pimo(
    maps: np.ndarray,
    masks: np.ndarray,
    groups: np.ndarray | None = None,
    *,
    normal: np.ndarray | None = None,
    bounds: tuple[float, float] = FPR_BOUNDS,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> PerImageOverlap:
    """The share of each anomaly that is found at next to no false positives.

    Bertoldo, Ameln, Vaidya & Akçay 2024: one axis for all images is the rate z of false positives
    among the pixels of *normal images only*, so that what lies beside a defect is not counted
    against a map; the other is the recall of the marked pixels of one image. Its area over log z
    between the bounds is divided by log(high / low):

        1 / log(U / L) ∫ recall_i(t(z)) dz / z,  z from L to U.

    Exactly: with M pixels of normal images, t(z) lets ⌊z M⌋ of them through, and a pixel counts as
    found where it scores strictly above the next highest of them. The recall is then a staircase in
    z, integrated step by step without interpolation; of ties at t none is let through. With fewer
    than 1 / L such pixels the first step, at which no normal pixel is let through at all, counts
    from L on.

    The interval of the mean is a percentile bootstrap over images, or groups of them, the normal
    ones included, whose thresholds move with them.

    Args:
      maps: float `[N, H, W]`, higher for what is more anomalous.
      masks: bool, or integers 0 and 1, `[N, H, W]`.
      groups: `[N]` or None.
      normal: bool `[N]`, the normal images; those without a marked pixel where it is None. An
        anomalous image whose mask is empty is neither normal nor has a recall: it is left out.
      bounds: L and U, 0 < L < U <= 1.
      level: confidence level.
      resamples, seed: of the bootstrap.

    Raises:
      EvaluationError: as `anomaly_map_metrics`; bounds out of range; no normal image, one with a
        marked pixel, or not one flag per image.
    """
    low, high = bounds
    if not 0 < low < high <= 1:
        raise EvaluationError(f"bounds of a rate are 0 < low < high <= 1, not {low:g} and {high:g}")
    scores, truth = check_maps(maps, masks)
    flat_truth = truth.reshape(len(truth), -1)
    marked = np.asarray(flat_truth.any(axis=1))
    clean = ~marked if normal is None else _checked(normal, marked)
    if not clean.any():
        raise EvaluationError("no normal image: a rate of false positives is taken over these")
    flat = scores.reshape(len(scores), -1)
    anomalous = np.flatnonzero(marked)
    recall = _Recall.of(flat, flat_truth, anomalous, np.flatnonzero(clean))
    values = recall.areas(np.ones((len(scores), 1)), low, high)[:, 0]

    def mean(weights: np.ndarray) -> np.ndarray:
        own = weights[anomalous]
        return ratio((own * recall.areas(weights, low, high)).sum(axis=0), own.sum(axis=0))

    found = bootstrap(
        {"au_pimo": mean}, len(scores), groups, level=level, resamples=resamples, seed=seed
    )["au_pimo"]
    note = f"at false positive rates of {low:g} to {high:g} on normal images"
    return PerImageOverlap(anomalous, values, add_note(replace(found, n=len(anomalous)), note))


@dataclass(frozen=True, eq=False)
class _Recall:
    """Recall of each anomaly above each score of a normal pixel.

    Attributes:
      normal: float64 `[M]`, scores of the pixels of normal images, descending.
      image: int64 `[M]`, the image of each.
      pixels: int64, of one image.
      clean: int64, positions of the normal images.
      marked: for each anomalous image the scores of its marked pixels, ascending.
    """

    normal: np.ndarray
    image: np.ndarray
    pixels: int
    clean: np.ndarray
    marked: tuple[np.ndarray, ...]

    @classmethod
    def of(
        cls, flat: np.ndarray, truth: np.ndarray, anomalous: np.ndarray, clean: np.ndarray
    ) -> _Recall:
        scores = flat[clean].ravel()
        order = np.argsort(-scores, kind="stable")
        pixels = flat.shape[1]
        marked = tuple(np.sort(flat[image][truth[image]]) for image in anomalous)
        return cls(scores[order], clean[order // pixels], pixels, clean, marked)

    def areas(self, weights: np.ndarray, low: float, high: float) -> np.ndarray:
        """float64 `[A, R]`, of weights of images `[N, R]`; NaN without a normal image."""
        total = self.pixels * weights[self.clean].sum(axis=0)
        # As many of the highest normal pixels as any resample needs to fill the upper bound.
        count = min(len(self.normal), math.ceil(high * self.pixels * len(self.clean)) + 1)
        while True:
            through = np.cumsum(weights[self.image[:count]], axis=0)
            if count == len(self.normal) or (through[-1] >= high * total).all():
                break
            count = min(2 * count, len(self.normal))
        # The step above the k-th highest spans the rates from that of k - 1 pixels to that of k.
        rates = np.clip(ratio(np.pad(through, ((1, 0), (0, 0))), total[np.newaxis]), low, high)
        spans = np.diff(np.log(rates), axis=0) / math.log(high / low)
        recall = [
            1 - np.searchsorted(own, self.normal[:count], side="right") / len(own)
            for own in self.marked
        ]
        return np.minimum(np.stack(recall) @ spans, 1)  # but for rounding they are at most 1


def _checked(normal: np.ndarray, marked: np.ndarray) -> np.ndarray:
    clean = np.asarray(normal)
    if clean.shape != marked.shape or clean.dtype != np.bool_:
        raise EvaluationError(
            f"normal is {clean.dtype} {list(clean.shape)}, not bool [{len(marked)}]: one an image"
        )
    if both := int((clean & marked).sum()):
        raise EvaluationError(f"{both} images are called normal, but their masks mark pixels")
    return clean
