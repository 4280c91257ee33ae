"""ROC and precision-recall curves with their bands, and the calibration curve of one class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation.accepted import AcceptSteps
from cnn_jax.evaluation.calibration import Reliability
from cnn_jax.evaluation.classification import auroc_of_two
from cnn_jax.evaluation.estimate import Estimate
from cnn_jax.evaluation.intervals import (
    Statistic,
    Units,
    bootstrap,
    check_level,
    resampling_weights,
    share_of,
    widened,
)
from cnn_jax.evaluation.weighted import Ranking

_PLACES = 100  # the band is given at 0, 0.01, ..., 1


@dataclass(frozen=True, eq=False)
class Band:
    """A pointwise bootstrap interval of a curve.

    Attributes:
      at: float64 `[101]`: 0, 0.01, ..., 1.
      low, high: float64 `[101]`; NaN where no resample differs from another.
      left_out: resamples without a positive or without a negative, which do not count.
      resamples: how many there were in all.
      level: confidence level.
      unit: what was resampled, `example` or `group`.
    """

    at: np.ndarray
    low: np.ndarray
    high: np.ndarray
    left_out: int
    resamples: int
    level: float
    unit: str


@dataclass(frozen=True, eq=False)
class RocCurve:
    """Every pair of rates that a threshold can reach, float64 `[T]` each.

    Attributes:
      thresholds: infinity, which flags none, and every distinct score, descending.
      false_positive_rate, true_positive_rate: of flagging scores of at least the threshold.
      area: the AUROC, ties counting half.
      band: of the greatest true positive rate whose false positive rate is at most `band.at`.
    """

    thresholds: np.ndarray
    false_positive_rate: np.ndarray
    true_positive_rate: np.ndarray
    area: Estimate
    band: Band


@dataclass(frozen=True, eq=False)
class PrecisionRecallCurve:
    """Precision and recall of every threshold, float64 `[T]` each.

    Attributes:
      thresholds: infinity, which flags none, and every distinct score, descending.
      recall: of flagging scores of at least the threshold.
      precision: the same; that of flagging none, which is undefined, is set to 1.
      area: the average precision, sum of recall step times precision.
      band: of the precision of the highest threshold whose recall is at least `band.at`; at 0
        of the highest that finds any.
    """

    thresholds: np.ndarray
    recall: np.ndarray
    precision: np.ndarray
    area: Estimate
    band: Band


def roc_curve(
    scores: np.ndarray,
    actual: np.ndarray,
    groups: np.ndarray | None = None,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> RocCurve:
    """The true against the false positive rate of every threshold.

    The band holds each of its points alone with the level's probability, not all at once; the
    quantiles of its resamples are those of `intervals.widened`.

    Args:
      scores: float `[N]`, such as log odds; larger means more likely positive.
      actual: bool `[N]`.
      groups: `[N]` or None; what the bootstrap resamples.
      level, resamples, seed: of the intervals.

    Raises:
      EvaluationError: shapes that differ, a score that is no number, examples of one kind alone,
        or a level or resamples out of range.
    """
    scores, actual = _checked(scores, actual)
    steps = AcceptSteps.of(scores, actual)

    def rates(found: np.ndarray, alarms: np.ndarray) -> np.ndarray:
        wanted = np.arange(_PLACES + 1)[:, np.newaxis] * alarms[-1]
        at = _first(_PLACES * alarms, wanted, "right") - 1
        return np.take_along_axis(found, at, axis=0) / found[-1]

    n, options = len(actual), (level, resamples, seed)
    band = _band(steps, groups, rates, *options)
    band.low[-1] = band.high[-1] = 1  # flagging all finds all, in every resample
    ranking = Ranking.of(scores, actual)
    area = _area(ranking.auroc, n, groups, *options)
    if band.unit == "example":
        area = auroc_of_two(scores, actual, area)
    found, alarms = (one[:, 0] for one in _flagged(steps, np.ones((n, 1))))
    return RocCurve(steps.thresholds, alarms / alarms[-1], found / found[-1], area, band)


def precision_recall_curve(
    scores: np.ndarray,
    actual: np.ndarray,
    groups: np.ndarray | None = None,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> PrecisionRecallCurve:
    """The precision against the recall of every threshold; arguments and errors as `roc_curve`."""
    scores, actual = _checked(scores, actual)
    steps = AcceptSteps.of(scores, actual)

    def precisions(found: np.ndarray, alarms: np.ndarray) -> np.ndarray:
        # At least one is found, so that the precision is defined.
        wanted = np.maximum(np.arange(_PLACES + 1)[:, np.newaxis] * found[-1], 1)
        at = _first(_PLACES * found, wanted, "left")
        right = np.take_along_axis(found, at, axis=0)
        return right / (right + np.take_along_axis(alarms, at, axis=0))

    n, options = len(actual), (level, resamples, seed)
    band = _band(steps, groups, precisions, *options)
    ranking = Ranking.of(scores, actual)
    area = _area(ranking.average_precision, n, groups, *options)
    found, alarms = (one[:, 0] for one in _flagged(steps, np.ones((n, 1))))
    precision = np.ones(len(found))
    precision[1:] = found[1:] / (found + alarms)[1:]
    return PrecisionRecallCurve(steps.thresholds, found / found[-1], precision, area, band)


def calibration_curve(
    probability: np.ndarray,
    actual: np.ndarray,
    groups: np.ndarray | None = None,
    *,
    bins: int = 10,
    level: float = 0.95,
) -> Reliability:
    """How often those are positive that are given a probability, in bins of equal width.

    Args:
      probability: float `[N]`, of being positive.
      actual: bool `[N]`.
      groups: `[N]` or None; what the bootstrap resamples.
      bins: number of bins, (b / B, (b + 1) / B], the first one closed below.
      level: of the interval of each share.

    Returns:
      The bins: `confidence` is the mean probability, `accuracy` the share of positives.

    Raises:
      EvaluationError: shapes that differ, a probability outside 0..1, no examples, or bins or
        level out of range.
    """
    probability, actual = np.asarray(probability, np.float64), np.asarray(actual, bool)
    if probability.shape != actual.shape or not ((probability >= 0) & (probability <= 1)).all():
        raise EvaluationError("a calibration curve needs a probability in 0..1 for each example")
    if bins < 1:
        raise EvaluationError(f"calibration is seen in 1 bin or more, not {bins}")
    check_level(level)
    units = Units.of(len(actual), groups)
    edges = np.linspace(0, 1, bins + 1)
    index = np.searchsorted(edges[1:-1], probability, side="left")
    count = np.bincount(index, minlength=bins)
    divisor = np.where(count > 0, count, np.nan)
    ends = np.array([[0.0, 1.0]] * bins)
    for b in np.unique(index).tolist():
        share = share_of(actual[index == b], units, index == b, level=level)
        ends[b] = share.low, share.high
    return Reliability(
        edges=edges,
        count=count,
        confidence=np.bincount(index, weights=probability, minlength=bins) / divisor,
        accuracy=np.bincount(index, weights=actual, minlength=bins) / divisor,
        low=ends[:, 0],
        high=ends[:, 1],
    )


def _checked(scores: np.ndarray, actual: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores, actual = np.asarray(scores, np.float64), np.asarray(actual, bool)
    if scores.ndim != 1 or scores.shape != actual.shape:
        raise EvaluationError(
            f"scores {list(scores.shape)} and truth {list(actual.shape)} must be two rows of "
            "equal length"
        )
    if np.isnan(scores).any():
        raise EvaluationError(f"{int(np.isnan(scores).sum())} scores are no numbers")
    if actual.all() or not actual.any():
        raise EvaluationError("a curve needs examples of both kinds")
    return scores, actual


def _flagged(steps: AcceptSteps, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positives and negatives at or above each threshold, float64 `[T, R]` each."""
    counts = steps.counts(weights)
    return counts.right[counts.row], counts.wrong


def _first(rising: np.ndarray, wanted: np.ndarray, side: str) -> np.ndarray:
    """int64 `[G, R]`: `np.searchsorted` in each column of whole numbers `[T, R]`, at once."""
    rows, columns = rising.shape
    # Columns one above the other are one sorted row; whole numbers make that exact.
    apart = np.arange(columns) * (max(rising[-1].max(), wanted.max()) + 1)
    flat = np.searchsorted(
        (rising + apart).T.ravel(),
        wanted + apart,
        side=side,  # type: ignore[call-overload]
    )
    return np.asarray(flat - rows * np.arange(columns), np.int64)


def _band(
    steps: AcceptSteps,
    groups: np.ndarray | None,
    curve: Callable[[np.ndarray, np.ndarray], np.ndarray],
    level: float,
    resamples: int,
    seed: int,
) -> Band:
    check_level(level)
    if resamples < 1:
        raise EvaluationError(f"resamples must be at least 1, not {resamples}")
    units = Units.of(len(steps.positive), groups)
    drawn = []
    for weights in resampling_weights(units, resamples, seed):
        found, alarms = _flagged(steps, weights)
        both = (found[-1] > 0) & (alarms[-1] > 0)
        if both.any():
            drawn.append(curve(found[:, both], alarms[:, both]))
    low, high = (np.full(_PLACES + 1, np.nan) for _ in range(2))
    kept = sum(part.shape[1] for part in drawn)
    if kept and units.count > 1:
        values = np.concatenate(drawn, axis=1)
        differ = np.ptp(values, axis=1) > 0
        low[differ], high[differ] = np.quantile(values[differ], widened(level, units.count), axis=1)
    at = np.linspace(0, 1, _PLACES + 1)
    return Band(at, low, high, resamples - kept, resamples, level, units.name)


def _area(
    statistic: Statistic, n: int, groups: np.ndarray | None, level: float, resamples: int, seed: int
) -> Estimate:
    found = bootstrap({"": statistic}, n, groups, level=level, resamples=resamples, seed=seed)
    return found[""]
