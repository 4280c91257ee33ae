"""Whether probabilities mean what they say: calibration errors and the reliability diagram."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation.estimate import Estimate
from cnn_jax.evaluation.intervals import Statistic, Units, bootstrap, share_of
from cnn_jax.evaluation.predictions import Predictions
from cnn_jax.evaluation.weighted import mean_statistic, sums_by_bin


def expected_calibration_error(
    predictions: Predictions, temperature: float = 1.0, bins: int = 15
) -> Statistic:
    """ECE of the predicted class: Σ_b (n_b / n) |accuracy_b - confidence_b| (Guo et al., 2017).

    Bins are of equal width, open below and closed above, (b / B, (b + 1) / B]. The error is
    biased upwards, more so the fewer the examples: that of a calibrated model is not 0. Its
    resamples repeat the bias, so that the percentile interval misses the truth; the basic
    interval is given, which may lie below the value.
    """
    confidence, right = confidence_of(predictions, temperature)
    return _binned_gap(_confidence_bins(confidence, bins), right - confidence)


@dataclass(frozen=True, eq=False)
class Reliability:
    """Confidence against accuracy, by bin of confidence: what a reliability diagram shows.

    Attributes:
      edges: float64 `[B + 1]`; bin b is (edges[b], edges[b + 1]].
      count: int64 `[B]`, examples in each bin.
      confidence: float64 `[B]`, mean probability of the predicted class; NaN for empty bins.
      accuracy: float64 `[B]`; NaN for empty bins.
      low, high: float64 `[B]`, interval of the accuracy, [0, 1] for empty bins: Wilson's, or
        Clopper and Pearson's where fewer than 10 are right or wrong; where groups hold
        several examples the bootstrap's over groups.
    """

    edges: np.ndarray
    count: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    low: np.ndarray
    high: np.ndarray


def reliability(
    predictions: Predictions, temperature: float = 1.0, bins: int = 15, level: float = 0.95
) -> Reliability:
    """The reliability diagram of the predicted class, in the bins of the ECE.

    Raises:
      EvaluationError: multi-label predictions, or bins, a temperature or level out of range.
    """
    refuse_multilabel(predictions, "a reliability diagram of the predicted class")
    _check_bins(bins)
    confidence, right = confidence_of(predictions, temperature)
    index = _confidence_bins(confidence, bins)
    count = np.bincount(index, minlength=bins)
    correct = np.bincount(index, weights=right, minlength=bins)
    divisor = np.where(count > 0, count, math.nan)
    units = Units.of(len(right), predictions.groups)
    ends = np.array([[0.0, 1.0]] * bins)
    for b in np.unique(index).tolist():
        inside = index == b
        estimate = share_of(right[inside] > 0, units, inside, level=level)
        ends[b] = estimate.low, estimate.high
    return Reliability(
        edges=np.linspace(0, 1, bins + 1),
        count=count,
        confidence=np.bincount(index, weights=confidence, minlength=bins) / divisor,
        accuracy=correct / divisor,
        low=ends[:, 0],
        high=ends[:, 1],
    )


def calibration_figures(
    predictions: Predictions,
    *,
    temperature: float = 1.0,
    bins: int = 15,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """How far probabilities can be taken at their word, each figure with its interval.

    - `ece`: see `expected_calibration_error`; not for several labels.
    - `adaptive_ece`: the same in bins of equally many examples (Mukhoti et al. 2020), which does
      not hang on a few bins where the model is nearly always sure; equal confidences share a bin.
    - `classwise_ece`: mean over the classes (or labels) of
      Σ_b (n_b / n) |share of the class - mean p_k| in bins of p_k of equal width (Kull et al.
      2019): also of the classes that are not predicted.
    - `nll`: mean -log p of the target, in nats; `brier`: see `classification_metrics`, for
      several labels the mean over them. Both are proper: no model gains by other
      probabilities than it believes.

    The errors are biased upwards and have the basic bootstrap interval; the others percentiles.

    Args:
      predictions: hard labels.
      temperature: divides the logits.
      bins: of each error.
      level, resamples, seed: of the bootstrap by groups.

    Raises:
      EvaluationError: soft targets, no examples, fewer than one bin, or a temperature, level or
        resamples out of range.
    """
    if predictions.kind == "soft":
        raise EvaluationError("calibration needs hard labels, and these targets are soft")
    _check_bins(bins)
    p, k = predictions.probabilities(temperature), len(predictions.classes)
    several = predictions.kind == "multilabel"
    actual = predictions.targets if several else np.eye(k)[predictions.labels()]
    brier = ((p - actual) ** 2).mean(axis=1) if several else ((p - actual) ** 2).sum(axis=1)
    statistics: dict[str, Statistic] = {}
    if not several:
        statistics["ece"] = expected_calibration_error(predictions, temperature, bins)
        confidence, right = confidence_of(predictions, temperature)
        statistics["adaptive_ece"] = _binned_gap(_equal_bins(confidence, bins), right - confidence)
    of_classes = [
        _binned_gap(_confidence_bins(p[:, c], bins), actual[:, c] - p[:, c]) for c in range(k)
    ]
    statistics["classwise_ece"] = lambda weights: np.mean([s(weights) for s in of_classes], axis=0)
    statistics["nll"] = mean_statistic(predictions.negative_log_likelihood(temperature))
    statistics["brier"] = mean_statistic(brier)
    return bootstrap(
        statistics,
        len(predictions),
        predictions.groups,
        basic=[name for name in statistics if name.endswith("ece")],
        level=level,
        resamples=resamples,
        seed=seed,
    )


def _check_bins(bins: int) -> None:
    if bins < 1:
        raise EvaluationError(f"calibration is seen in 1 bin or more, not {bins}")


def _equal_bins(confidence: np.ndarray, bins: int) -> np.ndarray:
    """int64 `[N]`: bins of equally many examples; equal confidences are in the same one."""
    rank = np.searchsorted(np.sort(confidence), confidence, side="left")
    return rank * bins // len(confidence)


def _binned_gap(index: np.ndarray, gap: np.ndarray) -> Statistic:
    """Σ_b |Σ_i in b gap_i| / n."""
    gaps = sums_by_bin(index, int(index.max(initial=0)) + 1, gap)
    return lambda weights: np.abs(gaps @ weights).sum(axis=0) / weights.sum(axis=0)


def confidence_of(
    predictions: Predictions, temperature: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Probability of the predicted class and whether it is right, both float64 `[N]`."""
    confidence = predictions.probabilities(temperature).max(axis=1)
    return confidence, (predictions.predicted() == predictions.labels()).astype(np.float64)


def _confidence_bins(confidence: np.ndarray, bins: int) -> np.ndarray:
    return np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], confidence, side="left")


def refuse_multilabel(predictions: Predictions, what: str) -> None:
    """Raise EvaluationError for predictions of several labels."""
    if predictions.kind == "multilabel":
        raise EvaluationError(f"{what} needs one class per example; see per_class for multi-label")
