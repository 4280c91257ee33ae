"""Isotonic calibration: any rising curve from score to probability."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation.predictions import (
    CalibrationPredictions,
    P,
    Predictions,
    check_calibration,
)


@dataclass(frozen=True, eq=False)
class Isotonic:
    """A rising curve for each class against the rest (Zadrozny and Elkan 2002).

    Of two classes there is one curve, of the second class. Of more, the curves' values are divided
    by their sum; of several labels each has its own.

    Attributes:
      curves: for each: log odds float64 `[M]`, ascending, and probabilities float64 `[M]`;
        between them it is linear, outside constant.
      fitted_on: name of the split it was fitted on.
      n: number of examples of that split.
    """

    curves: tuple[tuple[np.ndarray, np.ndarray], ...]
    fitted_on: str
    n: int

    def apply(self, predictions: P) -> P:
        """The predictions whose logits are the logarithms (or log odds) of the new ones.

        Where a curve is level examples become ties, so that an AUROC may change a little.

        Raises:
          EvaluationError: another number of classes.
        """
        score = predictions.log_odds()[:, _columns(predictions)]
        if score.shape[1] != len(self.curves):
            raise EvaluationError(
                f"isotonic calibration of {len(self.curves)} curves does not fit predictions of "
                f"{len(predictions.classes)} classes"
            )
        p = np.stack([np.interp(score[:, i], x, y) for i, (x, y) in enumerate(self.curves)], axis=1)
        if predictions.kind == "multilabel":
            logits = np.log(p) - np.log1p(-p)
        else:
            p = np.concatenate([1 - p, p], axis=1) if len(predictions.classes) == 2 else p
            logits = np.log(p / p.sum(axis=1, keepdims=True))
        return replace(predictions, logits=logits.astype(np.float32))


def fit_isotonic(predictions: CalibrationPredictions) -> Isotonic:
    """The rising curves of least squares, by pooling adjacent violators.

    Each level of a curve, the share s of m examples, is taken as (s + 1/2) / (m + 1): no finite
    number of examples shows that something never happens. Nothing is assumed of the curve's form,
    for which it takes some hundred examples to be worth more than a temperature.

    Raises:
      EvaluationError: the predictions are not of the type that is fitted on, there are none, or
        targets are soft.
    """
    from scipy.optimize import isotonic_regression  # type: ignore[attr-defined]

    check_calibration(predictions, "isotonic calibration")
    if predictions.kind == "soft":
        raise EvaluationError("isotonic calibration needs hard labels, and these targets are soft")
    columns = _columns(predictions)
    score = predictions.log_odds()[:, columns]
    if predictions.kind == "multilabel":
        actual = predictions.targets > 0.5
    else:
        actual = predictions.labels()[:, np.newaxis] == np.arange(len(predictions.classes))
    curves = []
    for i, column in enumerate(columns):
        x, index, count = np.unique(score[:, i], return_inverse=True, return_counts=True)
        right = np.bincount(index, weights=actual[:, column])
        levels = isotonic_regression(right / count, weights=count).blocks
        first, last = levels[:-1], levels[1:] - 1
        total = np.add.reduceat(count, first)
        y = (np.add.reduceat(right, first) + 0.5) / (total + 1)
        # The added halves may turn the order of neighbouring levels of different size.
        y = isotonic_regression(y, weights=total).x
        curves.append((x[np.stack([first, last], 1)].ravel(), np.repeat(y, 2)))
    return Isotonic(tuple(curves), predictions.split, len(predictions))


def _columns(predictions: Predictions) -> list[int]:
    k = len(predictions.classes)
    return [1] if predictions.kind != "multilabel" and k == 2 else list(range(k))
