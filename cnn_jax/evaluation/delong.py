"""The variance of an AUROC by how much each example takes part in it.

DeLong, DeLong and Clarke-Pearson (1988), by midranks (Sun and Xu 2014).
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation.estimate import Estimate
from cnn_jax.evaluation.intervals import check_level, proportion


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
    variance = float(
        of_positives.var(ddof=1) / len(of_positives) + of_negatives.var(ddof=1) / len(of_negatives)
    )
    if value in (0, 1):
        low, high, method = proportion(round(value) * len(of_smaller), len(of_smaller), level)
        return Estimate(value, low, high, n, f"{method} of {len(of_smaller)} pairs", level)
    if variance == 0:  # only ties, such as scores that are all equal
        return Estimate(value, math.nan, math.nan, n, "no interval: all scores tie", level)
    z = NormalDist().inv_cdf(0.5 + level / 2)
    centre, half = math.log(value / (1 - value)), z * math.sqrt(variance) / (value * (1 - value))
    low, high = float(expit(centre - half)), float(expit(centre + half))
    return Estimate(value, low, high, n, "DeLong, logit", level)


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
