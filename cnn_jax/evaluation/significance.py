"""Tests of a difference between two models, and the correction for having made several.

Each answers with a p-value: how often a difference at least as large would be seen if there
were none. What an interval says more plainly is in `comparison`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation.intervals import Units
from cnn_jax.evaluation.predictions import Predictions

# All signs are tried up to here (2^16 sums); beyond, as many are drawn.
MOST_EXACT = 16
DRAWN_SIGNS = 2**16


@dataclass(frozen=True)
class Significance:
    """A test: what it found and how surprising that is without a difference.

    Attributes:
      value: the difference that was tested.
      p_value: two-sided, between 0 and 1.
      n: what was counted: examples or pairs of runs.
      method: name of the test, and how the p-value was computed.
    """

    value: float
    p_value: float
    n: int
    method: str

    def __str__(self) -> str:
        """As `McNemar, exact: difference 0.0150, p = 0.031, n = 400`."""
        p = "< 0.001" if self.p_value < 0.001 else f"= {self.p_value:.3f}"
        return f"{self.method}: difference {self.value:.4f}, p {p}, n = {self.n}"


def mcnemar(a: Predictions, b: Predictions) -> Significance:
    """Whether two classifiers are equally often right, from the examples on which they differ.

    Without a difference each of these is as likely to fall either way: the exact binomial
    test (McNemar 1947; exact by Edwards 1948). Without such examples p is 1.

    Raises:
      EvaluationError: other examples or targets; multi-label predictions; or groups of several
        examples, which are not independent: see `paired_difference`.
    """
    from scipy.special import bdtr

    only_a, only_b, n = discordant(a, b)
    # Twice P(X <= the smaller) for X ~ Bin(both, 1/2).
    p_value = min(1.0, 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5)))
    return Significance((only_a - only_b) / n, p_value, n, "McNemar, exact")


def discordant(a: Predictions, b: Predictions) -> tuple[int, int, int]:
    """Examples that only `a` has right, that only `b` has right, and all examples.

    Raises:
      EvaluationError: as `mcnemar`.
    """
    b = b.aligned(a)
    if a.kind == "multilabel":
        raise EvaluationError("multi-label predictions are not right or wrong: see nll and auroc")
    check_independent(a)
    check_independent(b)
    right_a, right_b = (p.predicted() == p.labels() for p in (a, b))
    return int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum()), len(a)


def check_independent(predictions: Predictions) -> None:
    """Raise EvaluationError where groups hold several examples."""
    if Units.of(len(predictions), predictions.groups).name == "group":
        raise EvaluationError(
            "groups hold several examples, which are not independent: use paired_difference"
        )


def sign_flip(differences: Sequence[float] | np.ndarray, *, seed: int = 0) -> Significance:
    """Whether paired differences, such as of runs with the same split, lie around 0.

    Without a difference each could as well have the other sign: the p-value is the share of
    assignments of signs whose sum is at least as far from 0. All are tried for up to 16
    differences; beyond, 65,536 are drawn and the observed one counts as one of them, so that p
    is never 0 (Phipson and Smyth 2010). Fewer than 6 differences can never give p < 0.05.

    Args:
      differences: float `[n]`.
      seed: of the draws.

    Raises:
      EvaluationError: none, or one that is not finite.
    """
    values = np.asarray(differences, np.float64)
    if values.ndim != 1 or len(values) == 0 or not np.isfinite(values).all():
        raise EvaluationError("the differences must be one or more finite numbers")
    n, observed = len(values), abs(values.sum())
    # Sums that are equal but for rounding count as equal.
    least = observed - 1e-12 * np.abs(values).sum()
    if n <= MOST_EXACT:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=n)))
        p_value, how = float((np.abs(signs @ values) >= least).mean()), "exact"
    else:
        drawn = np.random.default_rng(seed).integers(0, 2, (DRAWN_SIGNS, n)) * 2.0 - 1
        as_far = int((np.abs(drawn @ values) >= least).sum())
        p_value, how = (as_far + 1) / (DRAWN_SIGNS + 1), f"{DRAWN_SIGNS} draws"
    return Significance(float(values.mean()), p_value, n, f"sign flips, {how}")


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """p-values of a family of tests, corrected so that they may be read one by one.

    The i-th smallest of m is multiplied by m - i + 1, and none is left below a smaller one
    (Holm 1979): the chance of any false alarm among them stays below the level.

    Args:
      p_values: float `[m]`, in any order.

    Returns:
      float64 `[m]` in the same order, at most 1.

    Raises:
      EvaluationError: one is not between 0 and 1.
    """
    p = np.asarray(p_values, np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise EvaluationError("p-values must be numbers between 0 and 1")
    order = np.argsort(p, kind="stable")
    raised = p[order] * np.arange(len(p), 0, -1)
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(np.maximum.accumulate(raised), 1)
    return corrected
