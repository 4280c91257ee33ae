"""Figures of score maps against masks: how well a detector says where an image is anomalous."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation.estimate import Estimate
from cnn_jax.evaluation.intervals import Statistic, add_note, bootstrap
from cnn_jax.evaluation.lesions import components
from cnn_jax.evaluation.weighted import ratio

# Up to which rate of false positives AU-PRO is integrated (Bergmann et al. 2021).
FPR_LIMIT = 0.3

# Thresholds at which resamples are integrated.
_GRID = 1001


def anomaly_map_metrics(
    maps: np.ndarray,
    masks: np.ndarray,
    groups: np.ndarray | None = None,
    *,
    fpr_limit: float = FPR_LIMIT,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """The figures of the score maps of all images of a split, the normal ones included.

    - `pixel_auroc`: the probability that an anomalous pixel scores above a normal one, over all
      pixels of all images together, ties counting half.
    - `au_pro`: area under the curve of per-region overlap (Bergmann et al. 2021). At a threshold
      the overlap is the mean, over the connected regions of all masks (through edges and corners,
      as in `components`), of the share of a region that scores at or above it; it is drawn
      against the share of the normal pixels of all images that do. The curve starts at (0, 0), is
      linear between thresholds, and is integrated up to `fpr_limit` and divided by it. A region
      counts once, however large; images without one add normal pixels only. (A mean over images
      in which those without regions count as 0 is another, lower figure.)

    Both are exact. Intervals are percentile bootstraps over images, or groups of them; for
    `au_pro` the resamples are integrated over 1,001 thresholds, spread over all rates of false
    positives and densest at low ones.

    Args:
      maps: float `[N, H, W]`, higher for what is more anomalous.
      masks: bool, or integers 0 and 1, `[N, H, W]`. Masks are best resized to nearest pixels;
        cutting off what was resized bilinearly takes away borders, where scores are lowest.
      groups: `[N]` or None.
      fpr_limit: above 0 and at most 1.
      level: confidence level.
      resamples, seed: of the bootstrap.

    Returns:
      name -> estimate, whose `n` counts images.

    Raises:
      EvaluationError: shapes that differ, scores that are not finite, masks of other values, no
        anomalous or no normal pixel, a limit out of range, or as `bootstrap`.
    """
    scores, truth = check_maps(maps, masks)
    if not 0 < fpr_limit <= 1:
        raise EvaluationError(f"a rate of false positives is above 0 and at most 1: {fpr_limit}")
    pairs = _Pairs.of(scores, truth)
    overlap = _Overlap.of(scores, truth, _grid(scores, truth))
    statistics: dict[str, Statistic] = {
        "pixel_auroc": pairs.auroc,
        "au_pro": lambda weights: overlap.area(weights, fpr_limit),
    }
    found = bootstrap(statistics, len(scores), groups, level=level, resamples=resamples, seed=seed)
    exact = au_pro(scores, truth, fpr_limit=fpr_limit)
    found["au_pro"] = add_note(
        replace(found["au_pro"], value=exact), f"up to a false positive rate of {fpr_limit:g}"
    )
    return found


def au_pro(maps: np.ndarray, masks: np.ndarray, *, fpr_limit: float = FPR_LIMIT) -> float:
    """The exact area under the per-region overlap: see `anomaly_map_metrics`.

    Args:
      maps: float `[N, H, W]`.
      masks: bool, or integers 0 and 1, `[N, H, W]`.
      fpr_limit: above 0 and at most 1.

    Raises:
      EvaluationError: as `anomaly_map_metrics`.
    """
    scores, truth = check_maps(maps, masks)
    normal = np.sort(scores[~truth])
    regions = list(_regions(scores, truth))
    found = np.concatenate([values for _, values in regions])
    # Of each anomalous pixel, what it adds to the mean overlap.
    adds = np.concatenate([np.full(len(v), 1 / len(v) / len(regions)) for _, v in regions])
    order = np.argsort(found)
    found, from_low = found[order], np.concatenate([[0.0], np.cumsum(adds[order])])
    # Every score is a threshold, so that nothing is interpolated but ties.
    thresholds = np.unique(np.concatenate([found, normal]))[::-1]
    fpr = (len(normal) - np.searchsorted(normal, thresholds)) / len(normal)
    pro = from_low[-1] - from_low[np.searchsorted(found, thresholds)]
    fpr, pro = (np.concatenate([[0.0], x])[:, np.newaxis] for x in (fpr, pro))
    return float(_area(fpr, pro, fpr_limit)[0])


def _area(x: np.ndarray, y: np.ndarray, limit: float) -> np.ndarray:
    """`[R]`: the mean height of curves `[T, R]`, x never falling, from 0 to the limit."""
    step = np.diff(x, axis=0)
    inside = np.clip(limit - x[:-1], 0, step)
    share = np.divide(inside, step, out=np.zeros_like(step), where=step > 0)
    height = y[:-1] + np.diff(y, axis=0) * share / 2
    return (inside * height).sum(axis=0) / limit


@dataclass(frozen=True, eq=False)
class _Pairs:
    """How often anomalous pixels of one image score above normal ones of another.

    Attributes:
      wins: float64 `[N, N]`, pairs of an anomalous pixel of (row) above a normal one of (column),
        ties counting half.
      anomalous, normal: float64 `[N]`, pixels of each kind.
    """

    wins: np.ndarray
    anomalous: np.ndarray
    normal: np.ndarray

    @classmethod
    def of(cls, scores: np.ndarray, truth: np.ndarray) -> _Pairs:
        n = len(scores)
        image = np.repeat(np.arange(n), truth.reshape(n, -1).sum(axis=1))
        positives = scores[truth]
        order = np.argsort(positives, kind="stable")
        image, positives = image[order], positives[order]  # searched for in order, which is fast
        wins = np.zeros((n, n))
        for column in range(n):
            negatives = np.sort(scores[column][~truth[column]])
            below = np.searchsorted(negatives, positives, side="left")
            below += np.searchsorted(negatives, positives, side="right")
            wins[:, column] = np.bincount(image, weights=below / 2, minlength=n)
        counts = truth.reshape(n, -1).sum(axis=1).astype(np.float64)
        return cls(wins, counts, truth[0].size - counts)

    def auroc(self, weights: np.ndarray) -> np.ndarray:
        """`[R]`, of weights of images `[N, R]`."""
        wins = (weights * (self.wins @ weights)).sum(axis=0)
        return ratio(wins, (self.anomalous @ weights) * (self.normal @ weights))


@dataclass(frozen=True, eq=False)
class _Overlap:
    """Counts of each image at each of T thresholds, descending.

    Attributes:
      overlap: float64 `[T, N]`, summed over the image's regions.
      false: float64 `[T, N]`, normal pixels at or above the threshold.
      regions, normal: float64 `[N]`.
    """

    overlap: np.ndarray
    false: np.ndarray
    regions: np.ndarray
    normal: np.ndarray

    @classmethod
    def of(cls, scores: np.ndarray, truth: np.ndarray, thresholds: np.ndarray) -> _Overlap:
        n = len(scores)
        overlap, false = np.zeros((len(thresholds), n)), np.zeros((len(thresholds), n))
        regions = np.zeros(n)
        for image, values in _regions(scores, truth):
            overlap[:, image] += _at_or_above(values, thresholds) / len(values)
            regions[image] += 1
        for image in range(n):
            false[:, image] = _at_or_above(scores[image][~truth[image]], thresholds)
        normal = (~truth).reshape(n, -1).sum(axis=1).astype(np.float64)
        return cls(overlap, false, regions, normal)

    def area(self, weights: np.ndarray, limit: float) -> np.ndarray:
        """`[R]`: the area under the curve, of weights of images `[N, R]`."""
        pro = ratio(self.overlap @ weights, self.regions @ weights)
        fpr = ratio(self.false @ weights, self.normal @ weights)
        start = np.zeros((1, weights.shape[1]))
        area = _area(np.concatenate([start, fpr]), np.concatenate([start, pro]), limit)
        return np.where(self.regions @ weights > 0, area, np.nan)


def _regions(scores: np.ndarray, truth: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """The image and the scores of each connected region."""
    for image in np.flatnonzero(truth.any(axis=(1, 2))).tolist():
        labels, count = components(truth[image])
        inside = labels > 0
        values, which = scores[image][inside], labels[inside]
        order = np.argsort(which, kind="stable")
        ends = np.cumsum(np.bincount(which, minlength=count + 1)[1:])
        for part in np.split(values[order], ends[:-1]):
            yield image, part


def _at_or_above(values: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    return len(values) - np.searchsorted(np.sort(values), thresholds)


def _grid(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Thresholds, descending: all scores if few, else quantiles of normal ones, densest on top."""
    levels = np.unique(scores)
    if len(levels) > _GRID:
        normal = np.sort(scores[~truth])[::-1]
        rates = np.linspace(0, 1, _GRID - 1) ** 2
        at = np.unique(np.round(rates * (len(normal) - 1)).astype(np.int64))
        # The lowest score above all normal ones is where the curve leaves the axis.
        above = levels[levels > normal[0]]
        levels = np.unique(np.concatenate([normal[at], above[:1], levels[:1]]))
    return levels[::-1]


def check_maps(maps: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores as they are, and bool masks, `[N, H, W]`; raises as `anomaly_map_metrics`."""
    maps, masks = np.asarray(maps), np.asarray(masks)
    if maps.ndim != 3 or maps.shape != masks.shape or 0 in maps.shape:
        raise EvaluationError(
            f"score maps {list(maps.shape)} and masks {list(masks.shape)} must both be "
            "[N images, H, W]: bring them to one size"
        )
    if not np.isfinite(maps).all():
        raise EvaluationError("a score map holds a score that is not finite")
    if masks.dtype != np.bool_ and not (
        np.issubdtype(masks.dtype, np.integer) and np.isin(masks, (0, 1)).all()
    ):
        raise EvaluationError(
            f"masks of {masks.dtype} hold other values than 0 and 1: cut them off, such as at "
            "masks >= 0.5"
        )
    truth = masks.astype(bool)
    if truth.all() or not truth.any():
        kind = "normal" if truth.all() else "anomalous"
        raise EvaluationError(f"no {kind} pixel in any image: these figures need both kinds")
    return maps, truth
