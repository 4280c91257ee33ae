"""Where to draw the line: a threshold from validation data for one class against the rest."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cnn_jax.decision.fitted import FittedOn
from cnn_jax.decision.order_statistics import allowed_beyond, lowest_of_each
from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation.operating import OperatingFigures, operating_figures
from cnn_jax.evaluation.predictions import CalibrationPredictions, Predictions


@dataclass(frozen=True)
class Threshold:
    """An example is flagged as `positive` where its log odds are at least `log_odds`.

    Attributes:
      positive: name of the class that is looked for.
      log_odds: of `positive` against the rest, after the temperature; inf flags none.
      temperature: divides the logits.
      rule: how it was chosen, in words.
      fitted_on: the examples it was chosen on.
    """

    positive: str
    log_odds: float
    temperature: float
    rule: str
    fitted_on: FittedOn

    @property
    def probability(self) -> float:
        """The threshold as a probability of `positive`."""
        from scipy.special import expit

        return float(expit(self.log_odds))

    def flags(self, predictions: Predictions) -> np.ndarray:
        """bool `[N]`: which examples are flagged.

        Raises:
          EvaluationError: the predictions have no such class.
        """
        return scores(predictions, self.positive, self.temperature) >= self.log_odds

    def figures(
        self,
        predictions: Predictions,
        *,
        prevalence: float | None = None,
        level: float = 0.95,
        resamples: int = 1000,
        seed: int = 0,
    ) -> OperatingFigures:
        """What the threshold does on other examples than it was chosen on.

        Arguments as of `evaluation.operating_figures`.

        Raises:
          EvaluationError: the examples, or their groups, are among those it was chosen on; no
            such class; or as `operating_figures`.
        """
        self.fitted_on.check_apart(predictions, "the threshold")
        return operating_figures(
            self.flags(predictions),
            is_positive(predictions, self.positive),
            predictions.groups,
            prevalence=prevalence,
            level=level,
            resamples=resamples,
            seed=seed,
        )


def fit_threshold(
    predictions: CalibrationPredictions,
    *,
    positive: str,
    sensitivity: float | None = None,
    specificity: float | None = None,
    confidence: float | None = None,
    temperature: float = 1.0,
) -> Threshold:
    """The threshold for a wanted sensitivity or specificity, or else for the best of both.

    With a `sensitivity` as few calibration examples are flagged as find so many of the class;
    with a `specificity` as many as leave so many of the others alone. With neither, sensitivity
    + specificity - 1 is greatest (Youden 1950), and of equally good lines the lowest is taken,
    which finds most. The line lies in the middle of the gap between two calibration scores: at
    either end it would cling to one example, and where classes lie far apart that is a line
    through the midst of one of them.

    What holds on the calibration examples holds on others only about as often as not. With a
    `confidence` the line is drawn further out, so that the true sensitivity (or specificity) is
    the wanted one with that confidence over calibrations: see `allowed_beyond`. Where groups
    hold several examples the promise is of groups, and says nothing of large ones' examples: a
    group counts once, by its example nearest to being decided wrongly, and is found where all of
    its examples of the class are.

    Args:
      predictions: of validation or calibration data.
      positive: name of the class that is looked for.
      sensitivity, specificity: wanted share, between 0 and 1; at most one of them.
      confidence: of the promise; None for none.
      temperature: divides the logits; matters to the order of examples only where there are
        more than two classes.

    Raises:
      EvaluationError: predictions of another type; no such class, or no example of it or of
        others; both a sensitivity and a specificity, or one out of range; or too few examples
        for the confidence.
    """
    fitted_on = FittedOn.of(predictions, "a threshold")
    score = scores(predictions, positive, temperature)
    actual = is_positive(predictions, positive)
    if actual.all() or not actual.any():
        kind = "none but" if actual.all() else "no"
        raise EvaluationError(
            f"{kind} {positive!r} in {predictions.split!r}: a threshold needs it and others"
        )
    if sensitivity is not None and specificity is not None:
        raise EvaluationError("a threshold can have a wanted sensitivity or specificity, not both")
    wanted = specificity if sensitivity is None else sensitivity
    if wanted is None:
        if confidence is not None:
            raise EvaluationError("a confidence goes with a wanted sensitivity or specificity")
        line, rule = _youden(score, actual), "greatest sensitivity + specificity"
        return Threshold(positive, line, temperature, rule, fitted_on)
    if not 0 < wanted < 1:
        raise EvaluationError(f"a wanted share lies between 0 and 1, not at {wanted}")
    name = "specificity" if sensitivity is None else "sensitivity"
    kept = actual if sensitivity is not None else ~actual
    # Turned so that what must be kept lies above the line.
    turned = score[kept] if sensitivity is not None else -score[kept]
    rule = f"{name} of {100 * wanted:g} %"
    if confidence is None:
        beyond = min(math.floor((1 - wanted) * len(turned) + 1e-9), len(turned) - 1)
    else:
        groups = None if predictions.groups is None else predictions.groups[kept]
        examples, turned = len(turned), lowest_of_each(turned, groups)
        beyond = allowed_beyond(len(turned), 1 - wanted, confidence)
        rule += " of groups" if len(turned) < examples else ""
        rule += f" with confidence {100 * confidence:g} %"
    last = float(np.sort(turned)[beyond])
    levels = np.unique(score)
    if sensitivity is not None:  # the last that is flagged, and what is below it
        line = _between(levels[levels < last], last)
    else:  # the last that is not, and what is above it
        above = levels[levels > -last]
        line = _between(levels[levels <= -last], float(above[0])) if len(above) else math.inf
    return Threshold(positive, line, temperature, rule, fitted_on)


def scores(predictions: Predictions, positive: str, temperature: float = 1.0) -> np.ndarray:
    """float64 `[N]`: log odds of a class against the rest.

    Raises:
      EvaluationError: no such class.
    """
    return predictions.log_odds(temperature)[:, _column(predictions, positive)]


def is_positive(predictions: Predictions, positive: str) -> np.ndarray:
    """bool `[N]`: which examples are of a class, or have a label.

    Raises:
      EvaluationError: no such class, or soft targets.
    """
    column = _column(predictions, positive)
    if predictions.kind == "soft":
        raise EvaluationError("a threshold needs hard labels, and these targets are soft")
    if predictions.kind == "multilabel":
        return predictions.targets[:, column] > 0.5
    return predictions.labels() == column


def _column(predictions: Predictions, positive: str) -> int:
    if positive not in predictions.classes:
        raise EvaluationError(
            f"no class {positive!r} to look for: choose one of {', '.join(predictions.classes)}"
        )
    return predictions.classes.index(positive)


def _youden(score: np.ndarray, actual: np.ndarray) -> float:
    levels = np.unique(score)
    lines = np.array([_between(levels[:i], levels[i]) for i in range(len(levels))])
    missed = np.searchsorted(np.sort(score[actual]), lines)
    left = np.searchsorted(np.sort(score[~actual]), lines)
    # In whole numbers, so that equally good lines are equal and the lowest comes first.
    gain = left * int(actual.sum()) - missed * int((~actual).sum())
    return float(lines[gain.argmax()])


def _between(lower: np.ndarray, flagged: float) -> float:
    """The middle between the highest of the lower scores, ascending, and the lowest flagged one."""
    if not len(lower):
        return flagged
    # Rounding may leave the middle of two neighbours at the lower one, which it must not flag.
    return max((float(lower[-1]) + flagged) / 2, math.nextafter(float(lower[-1]), math.inf))
