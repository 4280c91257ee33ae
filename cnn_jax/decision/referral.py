"""Answers that are kept, with a promise on how many of them err; the rest is for a human."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cnn_jax.decision.fitted import FittedOn
from cnn_jax.decision.order_statistics import highest_rate
from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation.calibration import confidence_of
from cnn_jax.evaluation.intervals import Units
from cnn_jax.evaluation.predictions import CalibrationPredictions, Predictions

_LINES = 20


@dataclass(frozen=True)
class Referral:
    """An answer is kept where the probability of the predicted class is at least `confidence`.

    Attributes:
      confidence: the least that is kept.
      error: what was promised of the answers kept.
      bound: the upper bound of their error rate that keeps the promise.
      kept: share of the calibration examples that are kept.
      fitted_on: the calibration examples.
    """

    confidence: float
    error: float
    bound: float
    kept: float
    fitted_on: FittedOn

    def refers(self, predictions: Predictions) -> np.ndarray:
        """bool `[N]`: which examples are for a human to decide."""
        return confidence_of(predictions)[0] < self.confidence


def fit_referral(
    predictions: CalibrationPredictions, *, error: float, confidence: float = 0.95
) -> Referral:
    """The lowest line above which at most a share `error` of the answers is wrong.

    Twenty lines are tried, which keep 5, 10, ... 100 % of the calibration examples. The upper bound
    of Clopper and Pearson for the error rate of what a line keeps has level
    1 - (1 - confidence) / 20, so that all twenty hold together with the confidence wanted
    (Bonferroni; as in Learn then Test, Angelopoulos et al. 2021), and the lowest line with a bound
    of at most `error` is taken. If new examples are exchangeable with these, the true error
    rate of the answers kept is then at most `error` with that confidence over calibrations. Where
    groups hold several examples each counts once, as wrong if any answer kept is: the promise is
    then of groups.

    Args:
      predictions: of kind `class`.
      error: the largest share of wrong answers among those kept, between 0 and 1.
      confidence: of the promise.

    Raises:
      EvaluationError: predictions of another type or kind, an error or confidence out of range,
        or no line that keeps the promise: too many errors, or too few examples.
    """
    fitted_on = FittedOn.of(predictions, "a referral")
    if predictions.kind != "class":
        raise EvaluationError(f"a referral needs one class each, not {predictions.kind!r}")
    for name, value in (("error", error), ("confidence", confidence)):
        if not 0 < value < 1:
            raise EvaluationError(f"the {name} of a referral lies between 0 and 1, not at {value}")
    sure, right = confidence_of(predictions)
    unit = Units.of(len(sure), predictions.groups).index
    lines = np.quantile(sure, np.arange(_LINES) / _LINES, method="higher")  # ascending
    level = 1 - (1 - confidence) / _LINES

    def bound(line: float) -> float:
        kept = sure >= line
        groups = len(np.unique(unit[kept]))
        errors = len(np.unique(unit[kept & (right == 0)]))
        return highest_rate(errors, groups, level)

    found = next(
        ((float(line), at) for line in lines if (at := bound(line)) <= error),
        None,
    )
    if found is None:
        raise EvaluationError(
            f"no line among {len(sure)} calibration examples promises an error of at most "
            f"{error:g} with confidence {confidence:g}: allow more errors, or give more examples"
        )
    line, at = found
    return Referral(line, error, at, float((sure >= line).mean()), fitted_on)
