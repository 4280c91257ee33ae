"""Figures for targets where any of the K labels may be present at once."""

from __future__ import annotations

import numpy as np

from cnn_jax.evaluation.intervals import Statistic
from cnn_jax.evaluation.predictions import Predictions
from cnn_jax.evaluation.weighted import (
    Counts,
    Ranking,
    macro_auroc,
    macro_average_precision,
    mean_statistic,
)


def multilabel_statistics(
    predictions: Predictions, *, temperature: float = 1.0
) -> dict[str, Statistic]:
    """The figures of multi-label predictions as functions of example weights.

    - `auroc`, `average_precision`: mean over the labels that are present in some examples and
      absent in others.
    - `accuracy`: share of right labels, averaged over labels; `subset_accuracy`: share of
      examples with every label right. A label is given if its probability is above 0.5.
    - `micro_f1`: of counts summed over labels; `macro_f1`: mean over the labels among targets
      or predictions.
    - `nll`: binary cross-entropy in nats, mean over labels.

    Raises:
      EvaluationError: the temperature is not positive.
    """
    present, given = predictions.targets > 0.5, given_labels(predictions)
    scores = predictions.log_odds(temperature)
    rankings = [Ranking.of(scores[:, k], present[:, k]) for k in range(present.shape[1])]
    right = (present == given).astype(np.float64)
    counts = Counts.of(present, given)
    return {
        "auroc": macro_auroc(rankings),
        "average_precision": macro_average_precision(rankings),
        "accuracy": mean_statistic(right.mean(axis=1)),
        "subset_accuracy": mean_statistic(right.min(axis=1)),
        "micro_f1": counts.micro_f1,
        "macro_f1": counts.macro_f1,
        "nll": mean_statistic(predictions.negative_log_likelihood(temperature)),
    }


def given_labels(predictions: Predictions) -> np.ndarray:
    """bool `[N, K]`: labels whose probability is above 0.5, at any temperature."""
    return predictions.logits > 0
