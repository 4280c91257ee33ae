"""An alarm with a promise: how often, at most, a normal image raises it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cnn_jax.decision.fitted import FittedOn
from cnn_jax.decision.order_statistics import allowed_beyond, lowest_of_each
from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation.anomaly import anomaly_metrics
from cnn_jax.evaluation.anomaly_scores import (
    AnomalyScores,
    CalibrationScores,
    check_calibration_scores,
)
from cnn_jax.evaluation.estimate import Estimate
from cnn_jax.evaluation.intervals import Units


@dataclass(frozen=True)
class Alarm:
    """An image raises an alarm where its score is above `threshold`.

    Attributes:
      threshold: the k-th smallest of n calibration scores.
      n: independent calibration scores: groups, or images where each is its own.
      k: 1..n.
      false_alarm: the largest rate of false alarms that is promised.
      confidence: of the promise, over calibrations.
      fitted_on: the calibration images.
    """

    threshold: float
    n: int
    k: int
    false_alarm: float
    confidence: float
    fitted_on: FittedOn

    @property
    def of_groups(self) -> bool:
        """Whether groups held several images, so that the promise is of groups."""
        return self.fitted_on.n > self.n

    def to_dict(self) -> dict[str, float | int]:
        """What is said of it in files; which images it was fitted on is not."""
        return {
            "threshold": self.threshold,
            "n": self.n,
            "k": self.k,
            "false_alarm": self.false_alarm,
            "confidence": self.confidence,
        }

    def alarms(self, scores: AnomalyScores) -> np.ndarray:
        """bool `[N]`: which images raise an alarm."""
        return self.of(scores.scores)

    def of(self, scores: np.ndarray) -> np.ndarray:
        """The same of scores float `[N]`, as bool `[N]`."""
        return np.asarray(scores > self.threshold)

    def figures(
        self,
        scores: AnomalyScores,
        *,
        level: float = 0.95,
        resamples: int = 1000,
        seed: int = 0,
    ) -> dict[str, Estimate]:
        """What the alarm does on other images than it was fitted on: see `anomaly_metrics`.

        Whether the promise can have been kept there says `check_promise`.

        Raises:
          EvaluationError: the images, or their groups, are among those it was fitted on; or as
            `anomaly_metrics`.
        """
        self._check_apart(scores)
        return anomaly_metrics(
            scores, threshold=self.threshold, level=level, resamples=resamples, seed=seed
        )

    def _check_apart(self, scores: AnomalyScores) -> None:
        self.fitted_on.check_apart(scores, "the alarm")


def fit_alarm(
    scores: CalibrationScores, *, false_alarm: float = 0.05, confidence: float = 0.95
) -> Alarm:
    """The lowest threshold that keeps false alarms rare, with a promise.

    It is the k-th smallest of n calibration scores of normal images, k the smallest with
    P(Bin(n, 1 - α) >= k) <= δ, for a rate α of false alarms and a confidence 1 - δ. The rate at
    which a normal image from the same source scores above it is then at most α in at least
    1 - δ of all calibrations, whatever the continuous distribution of scores (Wilks 1941); ties
    only lower it. This is the bound of `allowed_beyond`: the alarms are what lies beyond the
    threshold, b = n - k calibration scores do, and P(Bin(n, 1 - α) >= n - b) is
    P(Bin(n, α) <= b), so that the smallest k belongs to the largest b.

    It is not the conformal promise of `fit_prediction_sets`, whose rate is kept on average over
    calibrations only; of those, about half have a higher one. And it is kept only where new
    images are exchangeable with these, which `check_promise` can refute.

    Where groups hold several images a group counts once, by its highest score: the promise is
    then that of all groups with normal images at most a share α has any false alarm. The groups
    must be of the size of those to come.

    Args:
      scores: of normal images that the detector was not fitted on.
      false_alarm: α.
      confidence: 1 - δ.

    Raises:
      EvaluationError: scores of another type, or some of anomalous images; a rate or confidence
        out of range; or too few independent images or groups for the promise, 59 of which are
        needed for 5 % with confidence 95 %.
    """
    check_calibration_scores(scores, "an alarm")
    groups = scores.groups
    highest = -lowest_of_each(-scores.scores, groups)
    n = len(highest)
    k = n - allowed_beyond(n, false_alarm, confidence)
    names = frozenset[str]() if groups is None else frozenset(str(group) for group in groups)
    ids = frozenset(str(name) for name in scores.ids)
    fitted_on = FittedOn(scores.split, len(scores), n, ids, names)
    return Alarm(float(np.sort(highest)[k - 1]), n, k, false_alarm, confidence, fitted_on)


@dataclass(frozen=True)
class PromiseCheck:
    """Whether normal images can be of the source that an alarm's promise is about.

    Attributes:
      kept: False where the promise is withdrawn.
      alarms: units (groups, or images where each is its own) with a false alarm.
      n: units with normal images.
      p_value: probability of so many alarms or more if each unit raised one at the promised rate.
      chance: probability of so many or more if these units are exchangeable with those of the
        calibration, over both; exact but for ties, which lower it.
      text: the verdict, one sentence.
    """

    kept: bool
    alarms: int
    n: int
    p_value: float
    chance: float
    text: str


def check_promise(
    alarm: Alarm, scores: AnomalyScores, *, significance: float = 0.05
) -> PromiseCheck:
    """Whether the false alarms on other normal images are compatible with the promise.

    The promise is withdrawn where the count a of m units with a false alarm is too high for the
    promised rate α: P(Bin(m, α) >= a) <= significance. The cause is nearly always that the
    images are not exchangeable with those of the calibration: another scanner, camera, lot or
    site. How likely so many would be if they were is known exactly: with b = n - k calibration
    scores beyond the threshold, a has the beta-binomial distribution of m, b + 1 and n - b.

    Few alarms prove nothing: a promise that was not withdrawn has not been shown to hold.

    Args:
      alarm: fitted on other images.
      scores: with `anomalous`; only the normal images are looked at.
      significance: of the test, between 0 and 1.

    Raises:
      EvaluationError: images or groups that the alarm was fitted on; none that is normal, or it
        is not known which are; groups of several images, where the alarm was fitted on single
        ones; or a significance out of range.
    """
    from scipy.special import betainc
    from scipy.stats import betabinom  # type: ignore[attr-defined]

    if not 0 < significance < 1:
        raise EvaluationError(f"a significance lies between 0 and 1, not at {significance}")
    alarm._check_apart(scores)
    normal = scores.normal()
    if len(normal) == 0:
        raise EvaluationError(f"no normal images in {scores.split!r} to check a promise on")
    units = Units.of(len(normal), normal.groups)
    if units.name == "group" and not alarm.of_groups:
        raise EvaluationError(
            f"the promise is of single images, and groups of {scores.split!r} hold several, which "
            "raise an alarm more often: fit the alarm on groups, or check one image of each"
        )
    m, b = units.count, alarm.n - alarm.k
    a = len(np.unique(units.index[alarm.alarms(normal)]))
    p_value = float(betainc(a, m - a + 1, alarm.false_alarm)) if a else 1.0
    chance = float(betabinom.sf(a - 1, m, b + 1, alarm.n - b)) if a else 1.0
    kept = p_value > significance
    things = "groups of normal images" if units.name == "group" else "normal images"
    seen = f"{a} of {m} {things} of {scores.split!r} raise one"
    promised = f"promise of at most {100 * alarm.false_alarm:g} % false alarms"
    if kept:
        text = f"Nothing speaks against the {promised}: {seen} (p = {p_value:.2g})."
    else:
        text = (
            f"The {promised} is withdrawn: {seen} (p = {p_value:.2g}). It holds for images that "
            f"are exchangeable with {alarm.fitted_on.split!r}; if these were, so many would be "
            f"seen with probability {chance:.2g}."
        )
    return PromiseCheck(kept, a, m, p_value, chance, text)
