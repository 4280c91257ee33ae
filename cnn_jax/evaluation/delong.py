"""Intervals of an AUROC, and of a difference of two, by how much each example takes part in it.

DeLong, DeLong and Clarke-Pearson (1988), by midranks (Sun and Xu 2014).
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation.estimate import Estimate
from cnn_jax.evaluation.intervals import check_level, proportion
from cnn_jax.evaluation.predictions import Predictions
from cnn_jax.evaluation.significance import Significance, check_independent


def auroc_interval(scores: np.ndarray, positive: np.ndarray, *, level: float = 0.95) -> Estimate:
    """One AUROC with DeLong's variance, its interval made on the scale of log odds.

    There it is nearer to normal, and its ends never leave 0..1; near 1 the normal interval of
    the plain scale is too narrow and reaches beyond. Where every pair is ranked rightly, or
    wrongly, there is no variance. Then so are the m pairs that no example takes part in twice,
    m the smaller number of the two kinds, which are independent: Clopper and Pearson's bound of
    m successes holds at least as often as `level` says.

    Args:
      scores: float `[N]`, larger means more likely positive.
      positive: bool `[N]`.
      level: confidence level.

    Raises:
      EvaluationError: fewer than two positives or negatives.
    """
    from scipy.special import expit

    check_level(level)
    n = len(scores)
    if min(int(positive.sum()), n - int(positive.sum())) < 2:
        raise EvaluationError("a variance needs two positives and two negatives")
    of_positives, of_negatives = placements(scores, positive)
    of_smaller = min(of_positives, of_negatives, key=len)
    value = float(of_positives.mean())
    variance = _variance(of_positives, of_negatives)
    if value in (0, 1):
        low, high, method = proportion(round(value) * len(of_smaller), len(of_smaller), level)
        return Estimate(value, low, high, n, f"{method} of {len(of_smaller)} pairs", level)
    if variance == 0:  # only ties, such as scores that are all equal
        return Estimate(value, math.nan, math.nan, n, "no interval: all scores tie", level)
    z = NormalDist().inv_cdf(0.5 + level / 2)
    centre, half = math.log(value / (1 - value)), z * math.sqrt(variance) / (value * (1 - value))
    low, high = float(expit(centre - half)), float(expit(centre + half))
    return Estimate(value, low, high, n, "DeLong, logit", level)


def delong(
    a: Predictions, b: Predictions, *, positive: str | None = None, level: float = 0.95
) -> tuple[Estimate, Significance]:
    """Difference of two areas under the ROC curve on the same examples, without resampling.

    An AUROC is a mean over pairs of a positive and a negative example; its variance follows
    from how much each example takes part in it (DeLong, DeLong and Clarke-Pearson 1988), which
    midranks give in O(n log n) (Sun and Xu 2014). Ties count half. Normal approximation.

    Args:
      a, b: predictions of the same examples.
      positive: the class whose scores rank, against all others; by default the second of two.
      level: confidence level of the interval.

    Raises:
      EvaluationError: other examples, no such class, fewer than two examples of it or of the
        others, multi-label or soft targets, or groups of several examples.
    """
    check_level(level)
    b = b.aligned(a)
    if a.kind != "class":
        raise EvaluationError(f"DeLong's test needs one class per example, not {a.kind!r} targets")
    check_independent(a)
    if positive is None and len(a.classes) != 2:
        raise EvaluationError(f"say which class is positive: one of {', '.join(a.classes)}")
    if positive is not None and positive not in a.classes:
        raise EvaluationError(f"no class {positive!r}: there are {', '.join(a.classes)}")
    index = 1 if positive is None else a.classes.index(positive)
    truth = a.labels() == index
    if min(int(truth.sum()), int((~truth).sum())) < 2:
        raise EvaluationError(
            f"a variance needs two examples of class {a.classes[index]!r} and two others"
        )
    of_a, of_b = (placements(p.log_odds()[:, index], truth) for p in (a, b))
    of_positives, of_negatives = of_a[0] - of_b[0], of_a[1] - of_b[1]
    value, variance, n = float(of_positives.mean()), _variance(of_positives, of_negatives), len(a)
    if variance == 0:  # both rank alike, or both without a mistake
        none = Estimate(value, math.nan, math.nan, n, "no interval: the two rank alike", level)
        return none, Significance(value, 1.0, n, "DeLong")
    error = math.sqrt(variance)
    normal = NormalDist()
    half = normal.inv_cdf(0.5 + level / 2) * error
    estimate = Estimate(value, value - half, value + half, n, "DeLong; paired", level)
    return estimate, Significance(value, math.erfc(abs(value) / error / math.sqrt(2)), n, "DeLong")


def _variance(of_positives: np.ndarray, of_negatives: np.ndarray) -> float:
    """Of a mean over pairs, or of a difference of two, from the placements of each example."""
    return sum(float(x.var(ddof=1)) / len(x) for x in (of_positives, of_negatives))


def placements(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each positive the share of negatives below it, for each negative that of positives
    above it; ties count half. The mean of either is the AUROC."""
    from scipy.stats import rankdata

    of_positives, of_negatives = scores[positive], scores[~positive]
    m, n = len(of_positives), len(of_negatives)
    among_all = rankdata(np.concatenate([of_positives, of_negatives]))
    below = among_all[:m] - rankdata(of_positives)
    not_above = among_all[m:] - rankdata(of_negatives)
    return below / n, 1 - not_above / m
