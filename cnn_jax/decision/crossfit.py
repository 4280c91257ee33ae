"""Calibrating each part of the validation data by the others, to see what calibration is worth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import numpy as np

from cnn_jax.data.splits import assign_parts
from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation.predictions import CalibrationPredictions, P, check_calibration


class Calibrator(Protocol):
    """What was fitted on calibration data and changes the logits of any."""

    def apply(self, predictions: P) -> P:
        """The predictions with calibrated logits."""
        ...


def cross_fitted(
    predictions: CalibrationPredictions,
    fit: Callable[[CalibrationPredictions], Calibrator],
    *,
    folds: int = 5,
    seed: int = 0,
) -> CalibrationPredictions:
    """The same predictions, each calibrated by a fit to the folds it is not in.

    Figures of what comes back, such as the ECE, are those of calibrated predictions on examples
    that the calibration has not seen, without touching the test part. Folds are stratified by
    class and never cut a group.

    Args:
      predictions: of validation or calibration data.
      fit: such as `fit_temperature`.
      folds: how many, from 2 to the number of groups.
      seed: of the folds.

    Raises:
      EvaluationError: predictions of another type, or a number of folds out of range.
    """
    check_calibration(predictions, "a calibration")
    groups = predictions.ids if predictions.groups is None else predictions.groups
    if not 2 <= folds <= (count := len(np.unique(groups))):
        raise EvaluationError(
            f"cross-fitting takes between 2 folds and one for each of {count} groups, not {folds}"
        )
    shares = {str(number): 1 / folds for number in range(folds)}
    fold_of = assign_parts(
        predictions.ids, predictions.labels(), groups, shares, seed, rare_in_first=False
    )
    logits = np.empty_like(predictions.logits)
    for fold in np.unique(fold_of):
        inside = fold_of == fold
        logits[inside] = fit(predictions.take(~inside)).apply(predictions.take(inside)).logits
    return replace(predictions, logits=logits)
