"""What a yes-or-no decision is worth: sensitivity, specificity, predictive values, net benefit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation.estimate import Estimate
from cnn_jax.evaluation.intervals import Statistic, Units, bootstrap, check_level, share_of
from cnn_jax.evaluation.weighted import ratio


@dataclass(frozen=True)
class OperatingFigures:
    """What one threshold does on one set of examples.

    Attributes:
      sensitivity: share of the sick that are flagged.
      specificity: share of the healthy that are not.
      ppv: positive predictive value, the share of the flagged that are sick.
      npv: negative predictive value, the share of those not flagged that are healthy.
      accuracy: share of right decisions.
      prevalence: share of the sick that `ppv`, `npv` and `accuracy` hold for.
      adjusted: whether that prevalence was given, rather than that of the examples.
      counts: true positives, false positives, false negatives, true negatives.
    """

    sensitivity: Estimate
    specificity: Estimate
    ppv: Estimate
    npv: Estimate
    accuracy: Estimate
    prevalence: float
    adjusted: bool
    counts: tuple[int, int, int, int]


def operating_figures(
    flagged: np.ndarray,
    actual: np.ndarray,
    groups: np.ndarray | None = None,
    *,
    prevalence: float | None = None,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> OperatingFigures:
    """The figures of a decision, each with its interval.

    Shares of independent examples have Wilson's interval, or Clopper and Pearson's where fewer
    than 10 succeed or fail; where groups hold several examples the bootstrap's by group. With a
    prevalence p the predictive values are those of Bayes' rule,
    PPV = sens p / (sens p + (1 - spec) (1 - p)), and their intervals reach over all pairs of a
    sensitivity and a specificity that lie in intervals of level 1 - (1 - level) / 2 each: they
    hold at least as often as `level` says, and are never without width.

    Args:
      flagged: bool `[N]`, what was decided.
      actual: bool `[N]`, what is so.
      groups: `[N]` or None; what a bootstrap resamples.
      prevalence: share of the sick where the decision is to be used; None for that of the
        examples.
      level: confidence level.
      resamples, seed: of the bootstrap.

    Raises:
      EvaluationError: decisions that are not yes or no, shapes that differ, no sick or no healthy
        example, or a prevalence that is not between 0 and 1.
    """
    flagged, actual = _yes_or_no(flagged), _yes_or_no(actual)
    if flagged.shape != actual.shape or flagged.ndim != 1:
        raise EvaluationError(
            f"decisions {list(flagged.shape)} and truth {list(actual.shape)} must be two rows of "
            "equal length"
        )
    if actual.all() or not actual.any():
        which = "negative" if actual.all() else "positive"
        raise EvaluationError(f"no {which} example: sensitivity and specificity need both kinds")
    if prevalence is not None and not 0 < prevalence < 1:
        raise EvaluationError(f"a prevalence lies between 0 and 1, not at {prevalence}")
    check_level(level)
    conditions = {
        "sensitivity": (flagged, actual),
        "specificity": (~flagged, ~actual),
        "ppv": (actual, flagged),
        "npv": (~actual, ~flagged),
        "accuracy": (flagged == actual, np.ones_like(actual)),
    }

    units = Units.of(len(actual), groups)

    def share(name: str, level: float) -> Estimate:
        holds, among = conditions[name]
        if not among.any():
            nan = math.nan
            undefined = "undefined: nothing decided so"
            return Estimate(nan, nan, nan, 0, undefined, level, units.name, percent=True)
        return share_of(holds[among], units, among, level=level, resamples=resamples, seed=seed)

    found = {name: share(name, level) for name in conditions}
    if prevalence is not None:
        wide = 1 - (1 - level) / 2
        found |= _at_prevalence(
            prevalence, found, share("sensitivity", wide), share("specificity", wide)
        )
    counts = (flagged & actual, flagged & ~actual, ~flagged & actual, ~flagged & ~actual)
    tp, fp, fn, tn = (int(one.sum()) for one in counts)
    return OperatingFigures(
        **found,
        prevalence=float(actual.mean()) if prevalence is None else prevalence,
        adjusted=prevalence is not None,
        counts=(tp, fp, fn, tn),
    )


def _yes_or_no(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values)
    if not np.isin(values, (0, 1)).all():
        raise EvaluationError("decisions and truth are yes or no (bool, or 0 and 1)")
    return values.astype(bool)


def _at_prevalence(
    p: float, found: dict[str, Estimate], sens: Estimate, spec: Estimate
) -> dict[str, Estimate]:
    """Predictive values and accuracy at a prevalence; `sens` and `spec` have wider intervals."""

    def ppv(sensitivity: float, specificity: float) -> float:
        flagged = sensitivity * p + (1 - specificity) * (1 - p)
        return sensitivity * p / flagged if flagged else float("nan")

    def npv(sensitivity: float, specificity: float) -> float:
        passed = specificity * (1 - p) + (1 - sensitivity) * p
        return specificity * (1 - p) / passed if passed else float("nan")

    def accuracy(sensitivity: float, specificity: float) -> float:
        return sensitivity * p + specificity * (1 - p)

    adjusted = {}
    for name, function in (("ppv", ppv), ("npv", npv), ("accuracy", accuracy)):
        adjusted[name] = replace(
            found[name],
            value=function(sens.value, spec.value),
            low=function(sens.low, spec.low),
            high=function(sens.high, spec.high),
            n=sens.n + spec.n,
            level=found["sensitivity"].level,
            unit=sens.unit,
            method=f"Bayes' rule at prevalence {p:g}, over intervals of both shares",
        )
    return adjusted


@dataclass(frozen=True, eq=False)
class DecisionCurve:
    """Net benefit by threshold probability, float64 `[T]` each (Vickers and Elkin 2006).

    Attributes:
      thresholds: the probability from which on one would treat.
      model: net benefit of treating those whose probability is at least the threshold.
      low, high: pointwise interval of `model`; NaN where no resample differs, as where no one
        is flagged.
      treat_all: net benefit of treating everyone; that of treating no one is 0.
      prevalence: share of the sick that the curve holds for.
    """

    thresholds: np.ndarray
    model: np.ndarray
    low: np.ndarray
    high: np.ndarray
    treat_all: np.ndarray
    prevalence: float


def decision_curve(
    probability: np.ndarray,
    actual: np.ndarray,
    groups: np.ndarray | None = None,
    *,
    thresholds: Sequence[float] | np.ndarray | None = None,
    prevalence: float | None = None,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> DecisionCurve:
    """Net benefit sens p - (1 - spec) (1 - p) t / (1 - t) at each threshold probability t.

    One who would treat from a probability of t on holds a false alarm for t / (1 - t) times as
    bad as a missed case is good to find; the net benefit counts found cases per person, less
    false alarms at that rate. A model is of use where it lies above treating all and none.

    Args:
      probability: float `[N]`, calibrated.
      actual: bool `[N]`.
      groups: `[N]` or None; what the bootstrap resamples.
      thresholds: strictly between 0 and 1; None for 0.01 to 0.99.
      prevalence: None for that of the examples (which is then resampled with them).
      level, resamples, seed: of the pointwise percentile intervals.

    Raises:
      EvaluationError: probabilities outside 0..1, thresholds or prevalence not between 0 and 1,
        or no sick or no healthy example.
    """
    probability, actual = np.asarray(probability, np.float64), np.asarray(actual, bool)
    t = (
        np.linspace(0.01, 0.99, 99)
        if thresholds is None
        else np.array(thresholds, np.float64, ndmin=1)
    )
    if probability.shape != actual.shape or not ((probability >= 0) & (probability <= 1)).all():
        raise EvaluationError("a decision curve needs a probability in 0..1 for each example")
    if not len(t) or not ((t > 0) & (t < 1)).all():
        raise EvaluationError("thresholds of a decision curve lie strictly between 0 and 1")
    if prevalence is not None and not 0 < prevalence < 1:
        raise EvaluationError(f"a prevalence lies between 0 and 1, not at {prevalence}")
    if actual.all() or not actual.any():
        raise EvaluationError("a decision curve needs examples of both kinds")
    sick, healthy = actual.astype(np.float64), (~actual).astype(np.float64)
    odds = t / (1 - t)

    def net_benefit(row: int) -> Statistic:
        flagged = probability >= t[row]

        def statistic(weights: np.ndarray) -> np.ndarray:
            found, alarms = (sick * flagged) @ weights, (healthy * flagged) @ weights
            if prevalence is None:
                return (found - odds[row] * alarms) / weights.sum(axis=0)
            sensitivity = ratio(found, sick @ weights)
            rate = ratio(alarms, healthy @ weights)
            return prevalence * sensitivity - odds[row] * (1 - prevalence) * rate

        return statistic

    estimates = bootstrap(
        {str(row): net_benefit(row) for row in range(len(t))},
        len(actual),
        groups,
        level=level,
        resamples=resamples,
        seed=seed,
    ).values()
    p = float(actual.mean()) if prevalence is None else prevalence
    return DecisionCurve(
        thresholds=t,
        model=np.array([e.value for e in estimates]),
        low=np.array([e.low for e in estimates]),
        high=np.array([e.high for e in estimates]),
        treat_all=p - (1 - p) * odds,
        prevalence=p,
    )
