"""The figures of each class on its own."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation.estimate import Estimate
from cnn_jax.evaluation.intervals import Statistic, add_note, bootstrap
from cnn_jax.evaluation.multilabel import given_labels
from cnn_jax.evaluation.predictions import Predictions
from cnn_jax.evaluation.weighted import Counts, Ranking

Figure = Literal["precision", "recall", "f1", "auroc", "average_precision"]


@dataclass(frozen=True)
class ClassRow:
    """One class of a table of results.

    Attributes:
      name: of the class.
      support: number of examples of the class.
      precision, recall, f1: 0 where they are 0/0; `Estimate.method` then says so.
      auroc, average_precision: of the class against the rest; NaN without examples of both.
    """

    name: str
    support: int
    precision: Estimate
    recall: Estimate
    f1: Estimate
    auroc: Estimate
    average_precision: Estimate


def per_class(
    predictions: Predictions,
    *,
    temperature: float = 1.0,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[ClassRow, ...]:
    """A row for every class (or label), with percentile bootstrap intervals by group.

    Precision, recall and F1 are of the predicted class; for multi-label predictions, of the
    labels with a probability above 0.5. A resample in which one is 0/0 does not count.

    Raises:
      EvaluationError: soft targets, no examples, or a temperature, level or resamples out of
        range.
    """
    actual, given = _indicators(predictions)
    counts, scores = Counts.of(actual, given), predictions.log_odds(temperature)
    statistics = {
        f"{figure}/{k}": statistic
        for k in range(len(predictions.classes))
        for figure, statistic in _statistics_of_class(counts, scores, actual, k).items()
    }
    estimates = bootstrap(
        statistics,
        len(predictions),
        predictions.groups,
        level=level,
        resamples=resamples,
        seed=seed,
    )
    return tuple(
        ClassRow(
            name=name,
            support=int(actual[:, k].sum()),
            **{f: _defined(f, estimates[f"{f}/{k}"]) for f in get_args(Figure)},
        )
        for k, name in enumerate(predictions.classes)
    )


def _statistics_of_class(
    counts: Counts, scores: np.ndarray, actual: np.ndarray, k: int
) -> dict[Figure, Statistic]:
    one = Counts(counts.actual[[k]], counts.predicted[[k]], counts.correct[[k]])
    ranking = Ranking.of(scores[:, k], actual[:, k])
    return {
        "precision": lambda weights: one.precision(weights)[0],
        "recall": lambda weights: one.recall(weights)[0],
        "f1": lambda weights: one.f1(weights)[0],
        "auroc": ranking.auroc,
        "average_precision": ranking.average_precision,
    }


def _indicators(predictions: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """Which classes each example has and which it was given, both bool `[N, K]`."""
    if predictions.kind == "soft":
        raise EvaluationError("figures by class need hard labels, and these targets are soft")
    if predictions.kind == "multilabel":
        return predictions.targets > 0.5, given_labels(predictions)
    classes = np.arange(len(predictions.classes))
    labels, predicted = predictions.labels(), predictions.predicted()
    return labels[:, np.newaxis] == classes, predicted[:, np.newaxis] == classes


def _defined(figure: Figure, estimate: Estimate) -> Estimate:
    if not math.isnan(estimate.value):
        return estimate
    if figure in ("auroc", "average_precision"):
        return add_note(estimate, "needs examples of the class and of others")
    return replace(estimate, value=0.0, method="0/0, defined as 0")
