"""What is left to err where the least sure answers are left to a human."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cnn_jax.evaluation.calibration import confidence_of, refuse_multilabel
from cnn_jax.evaluation.estimate import Estimate
from cnn_jax.evaluation.intervals import Statistic, bootstrap
from cnn_jax.evaluation.predictions import Predictions


@dataclass(frozen=True, eq=False)
class RiskCoverage:
    """The error of the answers kept, by the share of examples that are answered.

    Attributes:
      coverage: float64 `[M]`, ascending to 1; one point for each distinct confidence.
      risk: float64 `[M]`, share of wrong answers among those kept.
      confidence: float64 `[M]`, the least confidence that is kept at this point.
      area: the mean risk over all coverages (AURC, Geifman and El-Yaniv 2017); low where the
        errors are among the least sure answers.
    """

    coverage: np.ndarray
    risk: np.ndarray
    confidence: np.ndarray
    area: Estimate


def risk_coverage(
    predictions: Predictions,
    *,
    temperature: float = 1.0,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> RiskCoverage:
    """The risk-coverage curve of the predicted class, by its probability.

    Examples of equal confidence are kept or left together. Of two classes a temperature changes
    nothing but `confidence`.

    Args:
      predictions: not of several labels.
      temperature: divides the logits.
      level, resamples, seed: of the bootstrap by groups of the area.

    Raises:
      EvaluationError: multi-label predictions, no examples, or a temperature, level or resamples
        out of range.
    """
    refuse_multilabel(predictions, "a risk-coverage curve")
    confidence, right = confidence_of(predictions, temperature)
    # Log odds keep those apart whose probabilities round to 1.
    score = predictions.log_odds(temperature).max(axis=1)
    order = np.argsort(-score, kind="stable")
    sorted_score = score[order]
    # The last example of each confidence, where a curve may stop.
    ends = np.flatnonzero(np.append(sorted_score[1:] < sorted_score[:-1], True))
    wrong = 1 - right[order]
    kept = ends + 1
    area = bootstrap(
        {"area": _area(order, ends, wrong)},
        len(predictions),
        predictions.groups,
        level=level,
        resamples=resamples,
        seed=seed,
    )["area"]
    return RiskCoverage(
        coverage=kept / len(predictions),
        risk=np.cumsum(wrong)[ends] / kept,
        confidence=confidence[order][ends],
        area=area,
    )


def _area(order: np.ndarray, ends: np.ndarray, wrong: np.ndarray) -> Statistic:
    """Mean over the examples of the risk at which each is first kept."""

    def statistic(weights: np.ndarray) -> np.ndarray:
        sorted_weights = weights[order]
        kept = np.cumsum(sorted_weights, axis=0)[ends]
        errors = np.cumsum(sorted_weights * wrong[:, np.newaxis], axis=0)[ends]
        risk = np.divide(errors, kept, out=np.zeros_like(kept), where=kept > 0)
        steps = np.diff(kept, axis=0, prepend=0)
        area: np.ndarray = (steps * risk).sum(axis=0) / weights.sum(axis=0)
        return area

    return statistic
