"""A yes-or-no decision of a finished run: the line from validation, what it does on test."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cnn_jax.data.known import known_set
from cnn_jax.decision import Threshold, fit_temperature, fit_threshold, is_positive, presence
from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation import (
    CalibrationPredictions,
    Estimate,
    OperatingFigures,
    Predictions,
    operating_figures,
)
from cnn_jax.run import Run


@dataclass(frozen=True)
class Decision:
    """A threshold and its figures on the test part.

    Attributes:
      threshold: fitted on the validation part.
      on_validation: figures on the very examples it was fitted on, which are flattered.
      on_test: figures on the test part.
      elsewhere: the same where the class is as frequent as was asked for, or None.
      all_negative: accuracy on test of saying no to everyone.
      test: what was predicted for the test part; of a run that segments, whether a region is
        anywhere in an image.
    """

    threshold: Threshold
    on_validation: OperatingFigures
    on_test: OperatingFigures
    elsewhere: OperatingFigures | None
    all_negative: Estimate
    test: Predictions


def decide(
    run: Run,
    *,
    positive: str | None = None,
    sensitivity: float | None = None,
    specificity: float | None = None,
    confidence: float | None = None,
    prevalence: float | None = None,
    command: str = "decide",
) -> Decision:
    """Draw the line on validation predictions, and judge it on the saved ones of test.

    Of a run that segments it is decided whether a region is anywhere in an image; see
    `decision.presence`.

    Args:
      run: a finished run.
      positive: the class that is looked for, or the region; None for that of a known data set,
        or the only region.
      sensitivity, specificity, confidence: as of `decision.fit_threshold`.
      prevalence: share of that class where the decision is to be used.
      command: what the log of the test part's uses says.

    Raises:
      EvaluationError: no class is named and none is known; or as `fit_threshold` and
        `evaluation.operating_figures`.
      RunError: training has not ended.
    """
    validation, test, temperature = _answers(run)
    positive = positive or positive_class(run.info["data"]["name"], validation.classes)
    threshold = fit_threshold(
        validation,
        positive=positive,
        sensitivity=sensitivity,
        specificity=specificity,
        confidence=confidence,
        temperature=temperature,
    )
    actual = is_positive(test, positive)
    none = operating_figures(np.zeros(len(test), bool), actual, test.groups)
    decision = Decision(
        threshold=threshold,
        on_validation=operating_figures(
            threshold.flags(validation), is_positive(validation, positive), validation.groups
        ),
        on_test=threshold.figures(test),
        elsewhere=None if prevalence is None else threshold.figures(test, prevalence=prevalence),
        all_negative=none.accuracy,
        test=test,
    )
    run.log_use("test", len(test), command)
    return decision


def _answers(run: Run) -> tuple[CalibrationPredictions, Predictions, float]:
    """What was predicted for validation and test, image by image, and what divides the logits."""
    if not run.regions:
        temperature = run.temperature  # raises what to do where training has not ended
        return run.predictions("validation"), run.predictions("test"), temperature
    run.check_ended()
    validation = presence(run.masks("validation"))
    assert isinstance(validation, CalibrationPredictions)  # as its split says
    return validation, presence(run.masks("test")), fit_temperature(validation).value


def positive_class(name: str, classes: tuple[str, ...]) -> str:
    """The class that is looked for in a known data set; or the only one, a region, that there is.

    Raises:
      EvaluationError: it is not known.
    """
    if len(classes) == 1:
        return classes[0]
    known = known_set(name)
    positive = None if known is None else known[1].positive
    if positive is None or positive not in classes:
        raise EvaluationError(
            f"which class is looked for? Name it with --positive: one of {', '.join(classes)}"
        )
    return positive
