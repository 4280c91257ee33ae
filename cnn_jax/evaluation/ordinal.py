"""Figures of ordered classes, such as grades of a disease: how far off is an answer?"""

from __future__ import annotations

import numpy as np

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation.estimate import Estimate
from cnn_jax.evaluation.intervals import Statistic, bootstrap
from cnn_jax.evaluation.predictions import Predictions
from cnn_jax.evaluation.weighted import mean_statistic, ratio, sums_by_bin


def ordinal_figures(
    predictions: Predictions, *, level: float = 0.95, resamples: int = 1000, seed: int = 0
) -> dict[str, Estimate]:
    """How far predicted classes lie from the true ones, the classes being in order.

    - `quadratic_kappa`: Cohen's kappa with weights (i - j)^2 (Cohen 1968):
      1 - Σ w_ij O_ij / Σ w_ij E_ij, where O counts examples of class i predicted as j and E is
      what independent margins would give. 1 is perfect, 0 what chance gives; undefined where
      all examples are of one class and predicted as it.
    - `linear_kappa`: the same with |i - j|.
    - `mean_absolute_error`: mean |i - j|, in classes.

    Percentile bootstrap intervals by group.

    Raises:
      EvaluationError: multi-label or soft targets, which have no one true class; no examples.
    """
    if predictions.kind != "class":
        raise EvaluationError(f"ordered classes need one class each, not {predictions.kind!r}")
    labels, given, k = predictions.labels(), predictions.predicted(), len(predictions.classes)
    distance = np.abs(labels - given).astype(np.float64)
    return bootstrap(
        {
            "quadratic_kappa": _kappa(labels, given, k, distance**2, 2),
            "linear_kappa": _kappa(labels, given, k, distance, 1),
            "mean_absolute_error": mean_statistic(distance),
        },
        len(predictions),
        predictions.groups,
        level=level,
        resamples=resamples,
        seed=seed,
    )


def _kappa(
    labels: np.ndarray, given: np.ndarray, k: int, apart: np.ndarray, power: int
) -> Statistic:
    actual, predicted = sums_by_bin(labels, k), sums_by_bin(given, k)
    costs = np.abs(np.arange(k)[:, np.newaxis] - np.arange(k)).astype(np.float64) ** power

    def statistic(weights: np.ndarray) -> np.ndarray:
        by_chance = ((costs.T @ (actual @ weights)) * (predicted @ weights)).sum(axis=0)
        return 1 - ratio(apart @ weights * weights.sum(axis=0), by_chance)

    return statistic
