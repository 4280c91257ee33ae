"""Statistics of weighted examples, vectorised over columns of weights.

Throughout, `weights` is float64 `[N, R]`: how often each example counts, once per resample.
Results carry the resamples on the last axis. Undefined is NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from cnn_jax.evaluation.intervals import Statistic

T = TypeVar("T")


def once(of: Callable[[np.ndarray], T]) -> Callable[[np.ndarray], T]:
    """A function of weights that several statistics share, computed once for each array."""
    last: tuple[np.ndarray, T] | None = None

    def shared(weights: np.ndarray) -> T:
        nonlocal last
        if last is None or last[0] is not weights:
            last = (weights, of(weights))
        return last[1]

    return shared


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """numerator / denominator, NaN where the denominator is 0."""
    out = np.full(np.broadcast_shapes(numerator.shape, denominator.shape), np.nan)
    return np.divide(numerator, denominator, out=out, where=denominator != 0)


def mean_of_defined(values: np.ndarray) -> np.ndarray:
    """Mean over the first axis of the values that are not NaN; NaN where there are none."""
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0).sum(axis=0), defined.sum(axis=0))


def mean_statistic(values: np.ndarray) -> Statistic:
    """The weighted mean of one float64 value per example `[N]`."""
    return lambda weights: values @ weights / weights.sum(axis=0)


def sums_by_bin(bins: np.ndarray, count: int, values: np.ndarray | None = None) -> Any:
    """A SciPy CSR matrix `[count, N]` whose product with weights `[N, R]` sums them by bin.

    Args:
      bins: integer `[N]` in 0..count - 1, the bin of each example; negative for none.
      count: number of bins.
      values: float64 `[N]` to be summed, or None for ones.
    """
    from scipy.sparse import csr_matrix

    binned = np.flatnonzero(bins >= 0)
    values = np.ones(len(bins)) if values is None else values
    return csr_matrix((values[binned], (bins[binned], binned)), shape=(count, len(bins)))


@dataclass(frozen=True, eq=False)
class Counts:
    """What precision, recall and F1 of every class are made of.

    Attributes:
      actual, predicted, correct: SciPy CSR `[K, N]`: the examples that are, are said to be, and
        are rightly said to be of each class.
    """

    actual: Any
    predicted: Any
    correct: Any

    @classmethod
    def of(cls, actual: np.ndarray, predicted: np.ndarray) -> Counts:
        """From bool `[N, K]`: which classes each example has, and which it was given."""
        from scipy.sparse import csr_matrix

        return cls(
            actual=csr_matrix(actual.T, dtype=np.float64),
            predicted=csr_matrix(predicted.T, dtype=np.float64),
            correct=csr_matrix((actual & predicted).T, dtype=np.float64),
        )

    def precision(self, weights: np.ndarray) -> np.ndarray:
        """`[K, R]`: right among those said to be of the class; undefined if none is."""
        return ratio(self.correct @ weights, self.predicted @ weights)

    def recall(self, weights: np.ndarray) -> np.ndarray:
        """`[K, R]`: right among those of the class; undefined if none is."""
        return ratio(self.correct @ weights, self.actual @ weights)

    def f1(self, weights: np.ndarray) -> np.ndarray:
        """`[K, R]`: 2 correct / (actual + predicted); undefined if both are none."""
        return ratio(2 * (self.correct @ weights), (self.actual + self.predicted) @ weights)

    def balanced_accuracy(self, weights: np.ndarray) -> np.ndarray:
        """`[R]`: mean recall over the classes that have examples."""
        return mean_of_defined(self.recall(weights))

    def macro_f1(self, weights: np.ndarray) -> np.ndarray:
        """`[R]`: mean F1 over the classes that occur among targets or predictions."""
        return mean_of_defined(self.f1(weights))

    def micro_f1(self, weights: np.ndarray) -> np.ndarray:
        """`[R]`: F1 of the counts summed over classes."""
        correct = (self.correct @ weights).sum(axis=0)
        return ratio(2 * correct, ((self.actual + self.predicted) @ weights).sum(axis=0))


@dataclass(frozen=True, eq=False)
class Ranking:
    """How one class's examples rank against the others by score; sorted once.

    With D distinct scores among the positives there are 2D + 1 places for a negative: below
    the lowest, tied with it, between it and the next, and so on up. Weights summed by place
    give AUROC and average precision with ties, without sorting any resample.

    Attributes:
      positives: SciPy CSR `[D, N]`, positives by score, ascending.
      negatives: SciPy CSR `[2D + 1, N]`, negatives by place, ascending.
    """

    positives: Any
    negatives: Any

    @classmethod
    def of(cls, scores: np.ndarray, positive: np.ndarray) -> Ranking:
        """From float64 scores `[N]` (larger means more likely positive) and bool `[N]`."""
        levels = np.unique(scores[positive])
        at_least = np.searchsorted(levels, scores, side="left")
        place = at_least + np.searchsorted(levels, scores, side="right")
        return cls(
            positives=sums_by_bin(np.where(positive, at_least, -1), len(levels)),
            negatives=sums_by_bin(np.where(positive, -1, place), 2 * len(levels) + 1),
        )

    def auroc(self, weights: np.ndarray) -> np.ndarray:
        """`[R]`: probability that a positive scores above a negative, ties counting half.

        Undefined without positives or without negatives.
        """
        positives, negatives = self.positives @ weights, self.negatives @ weights
        below = np.cumsum(negatives, axis=0)
        wins = (positives * (below[:-1:2] + negatives[1::2] / 2)).sum(axis=0)
        return ratio(wins, positives.sum(axis=0) * below[-1])

    def average_precision(self, weights: np.ndarray) -> np.ndarray:
        """`[R]`: Σ (recall step × precision) over the distinct scores, without interpolation.

        Undefined without positives or, being 1 whatever the scores, without negatives.
        """
        positives, negatives = self.positives @ weights, self.negatives @ weights
        positives_from = np.cumsum(positives[::-1], axis=0)[::-1]
        negatives_from = np.cumsum(negatives[::-1], axis=0)[::-1]
        selected = positives_from + negatives_from[1::2]
        precision = np.divide(
            positives_from, selected, out=np.zeros_like(selected), where=selected > 0
        )
        value = ratio((positives * precision).sum(axis=0), positives.sum(axis=0))
        return np.where(negatives_from[0] > 0, value, np.nan)


def macro_auroc(rankings: list[Ranking]) -> Statistic:
    """Mean AUROC over the classes for which it is defined."""
    return lambda weights: mean_of_defined(np.stack([r.auroc(weights) for r in rankings]))


def macro_average_precision(rankings: list[Ranking]) -> Statistic:
    """Mean average precision over the classes for which it is defined."""
    return lambda weights: mean_of_defined(
        np.stack([r.average_precision(weights) for r in rankings])
    )
