"""How many of n calibration examples a threshold may leave beyond it, and keep a promise."""

from __future__ import annotations

import math

import numpy as np

from cnn_jax.errors import EvaluationError


def allowed_beyond(n: int, rate: float, confidence: float) -> int:
    """The most of n calibration scores that may lie beyond a threshold.

    Let the threshold be the (b + 1)-th score from the end that is cut off, so that b lie beyond
    it. The true rate beyond it is then at most that of Beta(b + 1, n - b), whatever the
    continuous distribution of the scores, and P(rate beyond > r) = P(Bin(n, r) <= b) (Wilks
    1941). The largest b with P(Bin(n, r) <= b) <= 1 - confidence keeps the rate at or below r
    with that confidence over calibrations. Ties only lower the rate.

    Args:
      n: independent calibration scores.
      rate: r, what may lie beyond at most.
      confidence: the share of calibrations in which that holds.

    Raises:
      EvaluationError: rate or confidence not between 0 and 1; or n too small for the promise:
        (1 - r)^n > 1 - confidence.
    """
    from scipy.special import bdtr

    for name, value in (("rate", rate), ("confidence", confidence)):
        if not 0 < value < 1:
            raise EvaluationError(f"the {name} of a promise lies between 0 and 1, not at {value}")
    doubt = 1 - confidence
    needed = math.ceil(math.log(doubt) / math.log1p(-rate) - 1e-9)
    if n < needed:
        raise EvaluationError(
            f"{n} independent calibration examples cannot promise a rate of at most {rate:g} with "
            f"confidence {confidence:g}: {needed} are needed; give more, or promise less"
        )
    low, high = 0, n - 1  # P(Bin <= low) <= doubt holds throughout
    while low < high:
        middle = (low + high + 1) // 2
        if bdtr(middle, n, rate) <= doubt:
            low = middle
        else:
            high = middle - 1
    return low


def highest_rate(beyond: int, n: int, confidence: float) -> float:
    """The upper end of Clopper and Pearson (1934) for a rate of which `beyond` of n are seen.

    The largest r with P(Bin(n, r) <= beyond) >= 1 - confidence; 1 where all of n are beyond. The
    true rate is at most this with the confidence, over samples of n independent examples.
    """
    from scipy.special import betaincinv

    return float(betaincinv(beyond + 1, n - beyond, confidence)) if beyond < n else 1.0


def lowest_of_each(scores: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """The lowest score of each group, float64 `[G]`; the scores themselves without groups."""
    if groups is None:
        return scores
    names, index = np.unique(groups, return_inverse=True)
    lowest = np.full(len(names), np.inf)
    np.minimum.at(lowest, index, scores)
    return lowest
