"""Is one model better than another on the same examples?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation.classification import IN_PERCENT, metric_statistics
from cnn_jax.evaluation.estimate import Estimate
from cnn_jax.evaluation.intervals import add_note, bootstrap, tango
from cnn_jax.evaluation.predictions import P, Predictions
from cnn_jax.evaluation.significance import discordant


def paired_difference(
    a: Predictions,
    b: Predictions,
    metric: str = "accuracy",
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """metric(a) - metric(b) on the same examples, aligned by their ids.

    What is hard for both cancels, and so the interval is narrower than the models' own suggest.
    It covers another test set, not another training seed. For the accuracy of independent
    examples it is Tango's score interval; else the accelerated bootstrap (BCa), which draws
    groups (examples without groups) once for both models.

    Args:
      a: predictions of one model.
      b: predictions of the other, of the same examples in any order.
      metric: a figure of `classification_metrics`, such as `accuracy`, `auroc` or `macro_f1`.
      level: confidence level.
      resamples: number of resamples.
      seed: of the resamples.

    Raises:
      EvaluationError: other examples, classes, targets or groups, or an unknown metric.
    """
    b = aligned_alike(b, a)
    of_a, of_b = metric_statistics(a), metric_statistics(b)
    if metric not in of_a:
        raise EvaluationError(f"no metric {metric!r} to compare: choose one of {', '.join(of_a)}")
    difference = {metric: lambda weights: of_a[metric](weights) - of_b[metric](weights)}
    estimates = bootstrap(
        difference,
        len(a),
        a.groups,
        accelerated=difference,
        level=level,
        resamples=resamples,
        seed=seed,
    )
    estimate = add_note(estimates[metric], "paired")
    if metric == "accuracy" and a.kind != "multilabel" and estimate.unit == "example":
        low, high = tango(*discordant(a, b), level)
        estimate = replace(estimate, low=low, high=high, method="Tango; paired")
    return replace(estimate, percent=metric in IN_PERCENT)


def aligned_alike(predictions: P, other: Predictions) -> P:
    """The predictions in the order of the other ones, whose groups must be the same.

    Raises:
      EvaluationError: other examples, classes, targets or groups.
    """
    aligned = predictions.aligned(other)
    if not _same_groups(aligned.groups, other.groups):
        raise EvaluationError("the two predictions disagree on the groups")
    return aligned


def _same_groups(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    if a is None or b is None:
        return a is b
    return np.array_equal(a, b)
