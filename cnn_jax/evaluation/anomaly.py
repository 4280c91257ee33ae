"""Figures of a detector of anomalies from its scores, each with its interval.

Throughout, the anomalous images are the positive ones, and a higher score is more anomalous.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cnn_jax.evaluation.anomaly_scores import AnomalyScores
from cnn_jax.evaluation.classification import auroc_of_two
from cnn_jax.evaluation.estimate import Estimate
from cnn_jax.evaluation.intervals import Statistic, Units, bootstrap, proportion, share_of
from cnn_jax.evaluation.weighted import Ranking, ratio

# The share of anomalous images that `fpr_at_95_tpr` finds.
_FOUND = 0.95


def anomaly_metrics(
    scores: AnomalyScores,
    *,
    threshold: float | None = None,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """The figures of one detector on one split, in the order they are reported.

    - `auroc`: the probability that an anomalous image scores above a normal one, ties counting
      half. DeLong's interval; the bootstrap's where groups hold several images.
    - `average_precision`: Σ (recall step × precision), without interpolation. It depends on the
      share of anomalous images, which is that of the split.
    - `fpr_at_95_tpr`: the share of normal images that score at least t, the highest t at which
      at least 95 % of the anomalous ones do. Nothing is interpolated: it can be had. (OpenOOD
      takes what is *normal* to be positive for a figure of the same name.)

    With a threshold, which must come from other images (`decision.fit_alarm`):

    - `false_alarm_rate`: the share of normal images that score above it.
    - `false_alarm_rate_by_group`: where groups hold several images, the share of groups with
      normal images of which one does; it is this that an alarm promises.
    - `detection_rate`: the share of anomalous images that score above it.

    Other intervals are percentile bootstraps by group; those of shares are as of `share_of`.

    Args:
      scores: of every image of the split, with `anomalous`.
      threshold: an alarm is a score above it.
      level: confidence level of the intervals.
      resamples: number of bootstrap resamples.
      seed: of the resamples.

    Returns:
      name -> estimate. A figure that needs images of a kind that there are none of is left out.

    Raises:
      EvaluationError: no images, it is not known which are anomalous, or a level or resamples out
        of range.
    """
    truth, values = scores.truth(), scores.scores
    units = Units.of(len(scores), scores.groups)
    found: dict[str, Estimate] = {}
    if truth.any() and not truth.all():
        ranking = Ranking.of(values, truth)
        statistics: dict[str, Statistic] = {
            "auroc": ranking.auroc,
            "average_precision": ranking.average_precision,
            "fpr_at_95_tpr": lambda weights: _false_positives(ranking, weights),
        }
        found = bootstrap(
            statistics, len(scores), scores.groups, level=level, resamples=resamples, seed=seed
        )
        if units.name == "example":
            found["auroc"] = auroc_of_two(values, truth, found["auroc"])
        found["fpr_at_95_tpr"] = replace(found["fpr_at_95_tpr"], percent=True)
    if threshold is None:
        return found
    alarms = values > threshold
    for name, among in (("false_alarm_rate", ~truth), ("detection_rate", truth)):
        if not among.any():
            continue
        found[name] = share_of(
            alarms[among], units, among, level=level, resamples=resamples, seed=seed
        )
        if name == "false_alarm_rate" and units.name == "group":
            found["false_alarm_rate_by_group"] = _by_group(alarms & among, among, units, level)
    return found


def _by_group(alarms: np.ndarray, among: np.ndarray, units: Units, level: float) -> Estimate:
    """The share of the groups of some images in which one of them is an alarm."""
    count, some = len(np.unique(units.index[among])), len(np.unique(units.index[alarms]))
    low, high, method = proportion(some, count, level)
    return Estimate(some / count, low, high, count, method, level, "group", percent=True)


def _false_positives(ranking: Ranking, weights: np.ndarray) -> np.ndarray:
    """`[R]`: the share of negatives at or above the highest score that finds 95 %."""
    positives, negatives = ranking.positives @ weights, ranking.negatives @ weights
    positives_from = np.cumsum(positives[::-1], axis=0)[::-1]
    negatives_from = np.cumsum(negatives[::-1], axis=0)[::-1]
    # Weights are whole numbers: the margin only undoes the rounding of 0.95 times their sum.
    enough = positives_from >= _FOUND * positives_from[0] - 1e-9
    level = enough.sum(axis=0) - 1
    at_or_above = np.take_along_axis(negatives_from, 2 * level[np.newaxis] + 1, axis=0)[0]
    share = ratio(at_or_above, negatives_from[0])
    return np.where(positives_from[0] > 0, share, np.nan)
