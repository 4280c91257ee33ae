"""Figures of several training runs: what another seed might give, and another test set.

Three kinds of interval are never mixed. One model's covers another *test set*. The mean of
several runs on one test set has one over *seeds*, by Student's t. And the mean of several runs
has one over *both*, whose variance is the sum of the two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation.comparison import aligned_alike
from cnn_jax.evaluation.estimate import Covers, Estimate, Unit
from cnn_jax.evaluation.examples import groups_of_folds
from cnn_jax.evaluation.intervals import Measure, Units, add_note, check_level, resampling_weights
from cnn_jax.evaluation.measured import Answers, measure, measures, usual_metric
from cnn_jax.evaluation.predictions import Predictions


def over_seeds(
    values: Sequence[float] | np.ndarray,
    n: int,
    *,
    level: float = 0.95,
    percent: bool = False,
    difference: bool = False,
) -> Estimate:
    """Mean of one figure of several runs on the same examples, with its interval over seeds.

    Student's t: mean ± t s / sqrt(k), s the standard deviation of the k runs. It says where the
    mean of very many seeds would lie on these very examples; not how another test set would
    turn out.

    Args:
      values: float `[k]`, the figure of each run.
      n: examples behind each.
      level: confidence level.
      percent: whether it prints as per cent.
      difference: whether the values are differences.

    Raises:
      EvaluationError: no values, or one that is not finite.
    """
    check_level(level)
    runs = _finite(values)
    k, mean = len(runs), float(runs.mean())
    if k == 1:
        low = high = math.nan
        method = "no interval: a single seed"
    else:
        half = half_width([_of_mean(runs)], level)
        low, high, method = mean - half, mean + half, "Student's t"
        if np.ptp(runs) == 0:  # two or three seeds may agree by chance: that is no certainty
            low, high, method = math.nan, math.nan, "no interval: all seeds agree"
    return Estimate(mean, low, high, n, method, level, "seed", "seed", k, percent, difference)


def over_seeds_and_test_sets(
    runs: Sequence[Answers],
    against: Sequence[Answers] = (),
    metric: str | None = None,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Mean of a figure over several runs, or a difference of two such means, covering both.

    The variance over seeds (s^2 / k for each side) and that over test sets (of the mean over
    the runs, by a bootstrap of groups that all runs share) are added; what falls differently on
    each example in each run counts in both, so that the interval is a little too wide rather
    than too narrow. The degrees of freedom are Satterthwaite's, with the groups less one for the
    second. Of masks what is resampled are cases, each with its lesions.

    Args:
      runs: two or more, of the same examples in any order.
      against: none, or two or more runs of what it is compared with.
      metric: a figure of `classification_metrics`, of masks `segmentation_metrics` or of
        embeddings `recognition_metrics`; None for the accuracy, of masks the Dice, of embeddings
        the equal error rate.
      level: confidence level.
      resamples: of the test set.
      seed: of the resamples.

    Raises:
      EvaluationError: fewer than two runs, other examples or groups, classes beside masks, or an
        unknown metric.
    """
    check_level(level)
    sides = [runs, against] if against else [runs]
    _check_several(sides)
    metric = metric or usual_metric(runs[0])
    aligned = [aligned_alike(run, runs[0]) for side in sides for run in side]
    made = [measure(run, metric) for run in aligned]
    units = Units.of(len(runs[0]), runs[0].groups)
    spread = variances(made[: len(runs)], made[len(runs) :], units, resamples=resamples, seed=seed)
    return spread.estimate(level)


def mean_figure(
    runs: Sequence[Answers], metric: str, *, level: float = 0.95
) -> dict[str, Estimate]:
    """`over_seeds`, and `over_seeds_and_test_sets` as `both`, of a figure of two or more runs.

    Raises:
      EvaluationError: as these.
    """
    _check_several([runs])
    made = [measure(aligned_alike(run, runs[0]), metric) for run in runs]
    units = Units.of(len(runs[0]), runs[0].groups)
    here = over_seeds([one.value for one in made], made[0].n, level=level, percent=made[0].percent)
    return {
        "seed": add_note(here, made[0].note) if made[0].note else here,
        "both": variances(made, (), units).estimate(level),
    }


def mean_figures(runs: Sequence[Answers], *, level: float = 0.95) -> dict[str, Estimate]:
    """`over_seeds_and_test_sets` of every figure of two or more runs.

    Raises:
      EvaluationError: as there.
    """
    _check_several([runs])
    made = [measures(aligned_alike(run, runs[0])) for run in runs]
    units = Units.of(len(runs[0]), runs[0].groups)
    return {
        name: variances([figures[name] for figures in made], (), units).estimate(level)
        for name in made[0]
    }


def _check_several(sides: Sequence[Sequence[Answers]]) -> None:
    if any(len(side) < 2 for side in sides):
        raise EvaluationError("a variance over seeds needs two or more runs on each side")


# A variance and its degrees of freedom.
Part = tuple[float, int]


def half_width(parts: Sequence[Part], level: float) -> float:
    """Half of the t interval of a figure whose variance is the sum of several parts.

    The degrees of freedom are Satterthwaite's (1946), (sum v)^2 / sum (v^2 / d): of one part its
    own, of two sides' means those of Welch's test.
    """
    from scipy.special import stdtrit

    variance = sum(part for part, _ in parts)
    squares = sum(part**2 / degrees for part, degrees in parts if degrees > 0)
    degrees = variance**2 / squares if squares else 1.0
    return float(stdtrit(degrees, 0.5 + level / 2)) * math.sqrt(variance)


def _of_mean(values: np.ndarray) -> Part:
    # Of equal values exactly 0, where rounding of their mean would leave something.
    variance = float(values.var(ddof=1)) if np.ptp(values) > 0 else 0.0
    return variance / len(values), len(values) - 1


@dataclass(frozen=True)
class Spread:
    """A mean over runs, or a difference of two, and where its uncertainty comes from.

    Attributes:
      value: the mean, or the difference of the two means.
      of_seeds: for each side the variance of its mean over seeds.
      of_test_set: variance over test sets, of the same mean or difference.
      unit: what was resampled.
      units, n, n_seeds: how many units, what the figure is over, and runs on the smaller side.
      percent, note: as of `Measure`.
    """

    value: float
    of_seeds: tuple[Part, ...]
    of_test_set: float
    unit: Unit
    units: int
    n: int
    n_seeds: int
    percent: bool = False
    note: str = ""

    def estimate(self, level: float) -> Estimate:
        """With the interval over both; without one where all resamples are alike."""
        test_set = (self.of_test_set, self.units - 1)
        method = "seed and bootstrap variance; t" + ("; paired" if len(self.of_seeds) > 1 else "")
        if self.of_test_set > 0:
            half = half_width([*self.of_seeds, test_set], level)
        else:
            half, method = math.nan, "no interval: no resample differs from another"
        return self._with(half, level, method, self.unit, "both")

    def estimate_over_seeds(self, level: float) -> Estimate:
        """With the interval over seeds alone, on this very test set."""
        half, method = half_width(self.of_seeds, level), "Welch's t"
        if not any(variance > 0 for variance, _ in self.of_seeds):
            half, method = math.nan, "no interval: all seeds agree"
        return self._with(half, level, method, "seed", "seed")

    def _with(self, half: float, level: float, method: str, unit: Unit, covers: Covers) -> Estimate:
        return Estimate(
            value=self.value,
            low=self.value - half,
            high=self.value + half,
            n=self.n,
            method=f"{method}; {self.note}" if self.note else method,
            level=level,
            unit=unit,
            covers=covers,
            n_seeds=self.n_seeds,
            percent=self.percent,
            difference=len(self.of_seeds) > 1,
        )


def variances(
    runs: Sequence[Measure],
    against: Sequence[Measure],
    units: Units,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Spread:
    """The parts of `over_seeds_and_test_sets`, of one figure of runs that are aligned.

    Args:
      runs: two or more.
      against: none, or two or more.
      units: of the examples.
      resamples, seed: as there.
    """
    sides = [side for side in (runs, against) if side]
    values = [np.array([one.value for one in side]) for side in sides]
    drawn = []
    for weights in resampling_weights(units, resamples, seed):
        means = [np.mean([one.statistic(weights) for one in side], axis=0) for side in sides]
        drawn.append(means[0] - means[1] if against else means[0])
    resampled = np.concatenate(drawn)
    resampled = resampled[~np.isnan(resampled)]
    first = runs[0]
    return Spread(
        value=float(values[0].mean() - (values[1].mean() if against else 0.0)),
        of_seeds=tuple(map(_of_mean, values)),
        of_test_set=float(resampled.var(ddof=1)) if len(resampled) > 1 else math.nan,
        unit=units.name,
        units=units.count,
        n=first.n,
        n_seeds=min(map(len, sides)),
        percent=first.percent,
        note=first.note,
    )


def figure(answers: Answers, metric: str) -> float:
    """One figure of one run, without its interval.

    Raises:
      EvaluationError: there is no such figure for such predictions.
    """
    return measure(answers, metric).value


def out_of_fold(folds: Sequence[Predictions]) -> Predictions:
    """The predictions of all folds of a cross-validation as those of one set.

    Each example was predicted once, by the model that had not seen it; figures and their
    intervals then come from all examples together, resampled by groups. A t interval over folds
    would treat them as independent, which their shared training data make them not.

    Raises:
      EvaluationError: no folds, other classes, an example in two folds, or a group cut by folds.
    """
    if not folds:
        raise EvaluationError("no folds to put together")
    first = folds[0]
    if any((fold.kind, fold.classes) != (first.kind, first.classes) for fold in folds):
        raise EvaluationError("the folds are not over the same classes")
    return replace(
        first,
        split="out-of-fold",
        ids=np.concatenate([fold.ids for fold in folds]),
        targets=np.concatenate([fold.targets for fold in folds]),
        logits=np.concatenate([fold.logits for fold in folds]),
        groups=groups_of_folds([fold.groups for fold in folds]),
        run_digest="",
    )


def power(difference: float, deviation: float, k: int, *, level: float = 0.95) -> float:
    """How often Welch's test of k runs against k finds a true difference between their means.

    Args:
      difference: of the two means.
      deviation: standard deviation over seeds, of each side.
      k: runs on each side, two or more.
      level: confidence level of the two-sided test.

    Returns:
      The probability, from the noncentral t distribution with 2 k - 2 degrees of freedom.
    """
    from scipy.special import nctdtr, stdtrit

    check_level(level)
    if k < 2 or deviation < 0:
        raise EvaluationError(f"power needs two or more runs and a deviation, not {k}, {deviation}")
    if deviation == 0:
        return 1.0 if difference else 1 - level
    degrees, noncentral = 2 * k - 2, abs(difference) / deviation * math.sqrt(k / 2)
    t = float(stdtrit(degrees, 0.5 + level / 2))
    return float(1 - nctdtr(degrees, noncentral, t) + nctdtr(degrees, noncentral, -t))


MOST_RUNS = 100_000


def runs_needed(
    difference: float, deviation: float, *, level: float = 0.95, wanted: float = 0.8
) -> int | None:
    """Runs on each side for which `power` reaches `wanted`; None beyond 100,000."""
    if not 0 < wanted < 1:
        raise EvaluationError(f"the power wanted must be between 0 and 1, not {wanted}")
    low, high = 1, 2
    while power(difference, deviation, high, level=level) < wanted:
        low, high = high, 2 * high
        if high > MOST_RUNS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        enough = power(difference, deviation, middle, level=level) >= wanted
        low, high = (low, middle) if enough else (middle, high)
    return high


def minimum_detectable_effect(
    deviation: float, k: int, *, level: float = 0.95, wanted: float = 0.8
) -> float:
    """The smallest difference that k runs against k find with probability `wanted`.

    Args:
      deviation: standard deviation over seeds, of each side; the effect has its unit.
      k: runs on each side, two or more.
      level: confidence level of the two-sided test.
      wanted: the power.
    """
    if deviation == 0:
        return 0.0
    low, high = 0.0, deviation
    while power(high, deviation, k, level=level) < wanted:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        enough = power(middle, deviation, k, level=level) >= wanted
        low, high = (low, middle) if enough else (middle, high)
    return high


def _finite(values: Sequence[float] | np.ndarray) -> np.ndarray:
    runs = np.asarray(values, np.float64)
    if runs.ndim != 1 or len(runs) == 0 or not np.isfinite(runs).all():
        raise EvaluationError("the figures of the runs must be one or more finite numbers")
    return runs
