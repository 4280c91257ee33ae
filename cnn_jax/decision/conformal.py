"""Prediction sets: every class that cannot be ruled out, with a promise on how often that holds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cnn_jax.decision.fitted import FittedOn
from cnn_jax.decision.order_statistics import lowest_of_each
from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation.estimate import Estimate
from cnn_jax.evaluation.intervals import Units, bootstrap, share_of
from cnn_jax.evaluation.predictions import CalibrationPredictions, Predictions
from cnn_jax.evaluation.weighted import mean_statistic


@dataclass(frozen=True)
class SetFigures:
    """What prediction sets are worth on some examples.

    Attributes:
      coverage: share of examples whose class is in their set.
      size: mean number of classes in a set.
      single: share of sets with exactly one class; the others are for a human to decide.
      single_right: share of these whose class is right.
      by_class: coverage of each class's examples, by name: not promised, and lowest where the
        model is weakest.
    """

    coverage: Estimate
    size: Estimate
    single: Estimate
    single_right: Estimate | None
    by_class: dict[str, Estimate]


@dataclass(frozen=True)
class PredictionSets:
    """A class is in the set of an example where 1 minus its probability is at most `largest`.

    Attributes:
      largest: of 1 minus the probability.
      promised: the marginal coverage.
      fitted_on: the calibration examples.
    """

    largest: float
    promised: float
    fitted_on: FittedOn

    def sets(self, predictions: Predictions) -> np.ndarray:
        """bool `[N, K]`: which classes are in the set of each example; none may be."""
        return self.of(predictions.probabilities())

    def of(self, probabilities: np.ndarray) -> np.ndarray:
        """The same from probabilities float `[N, K]`."""
        return 1 - probabilities <= self.largest

    def figures(
        self, predictions: Predictions, *, level: float = 0.95, resamples: int = 1000, seed: int = 0
    ) -> SetFigures:
        """Coverage and size on other examples than the sets were calibrated on.

        Raises:
          EvaluationError: the examples or their groups are among those, or there are none.
        """
        self.fitted_on.check_apart(predictions, "the prediction sets' size")
        sets, labels = self.sets(predictions), predictions.labels()
        units = Units.of(len(labels), predictions.groups)
        inside = sets[np.arange(len(labels)), labels]
        everyone, single = np.ones(len(labels), bool), sets.sum(axis=1) == 1

        def share(holds: np.ndarray, among: np.ndarray) -> Estimate:
            return share_of(holds[among], units, among, level=level, resamples=resamples, seed=seed)

        sizes = {"size": mean_statistic(sets.sum(axis=1).astype(np.float64))}
        size = bootstrap(
            sizes, len(labels), predictions.groups, level=level, resamples=resamples, seed=seed
        )["size"]
        return SetFigures(
            coverage=share(inside, everyone),
            size=size,
            single=share(single, everyone),
            single_right=share(inside, single) if single.any() else None,
            by_class={
                name: share(inside, labels == k)
                for k, name in enumerate(predictions.classes)
                if (labels == k).any()
            },
        )


def fit_prediction_sets(
    predictions: CalibrationPredictions, *, coverage: float = 0.95
) -> PredictionSets:
    """Split conformal prediction (Vovk et al. 2005; Sadinle, Lei and Wasserman 2019).

    With n calibration examples the line is the ceil((n + 1) coverage)-th smallest of
    1 - p(true class). If a new example is exchangeable with them, its class is in its set with at
    least that probability, and at most 1 / (n + 1) more but for ties. The promise is *marginal*:
    over examples and calibrations, not for each class, patient group or image. It is not kept
    where the new examples come from elsewhere. Where the network's state was chosen on these very
    examples (`train.select = "best"`) it holds only nearly.

    Where groups hold several examples each counts once, by its least likely one: the promise is
    then for all examples of a new group at once.

    Args:
      predictions: of kind `class`, uncalibrated, so that nothing in them was fitted here.
      coverage: strictly between 0 and 1.

    Raises:
      EvaluationError: predictions of another type or kind, a coverage out of range, or so few
        calibration examples that only sets of all classes would keep the promise.
    """
    fitted_on = FittedOn.of(predictions, "a prediction set")
    if predictions.kind != "class":
        raise EvaluationError(f"prediction sets need one class each, not {predictions.kind!r}")
    if not 0 < coverage < 1:
        raise EvaluationError(f"a coverage lies between 0 and 1, not at {coverage}")
    p = predictions.probabilities()
    strange = 1 - p[np.arange(len(p)), predictions.labels()]
    strange = -lowest_of_each(-strange, predictions.groups)
    rank = max(math.ceil((len(strange) + 1) * coverage - 1e-9), 1)
    if rank > len(strange):
        needed = math.ceil(coverage / (1 - coverage) - 1e-9)
        raise EvaluationError(
            f"{len(strange)} independent calibration examples cannot promise a coverage of "
            f"{coverage:g} with less than all classes in every set: {needed} are needed"
        )
    return PredictionSets(float(np.sort(strange)[rank - 1]), coverage, fitted_on)
