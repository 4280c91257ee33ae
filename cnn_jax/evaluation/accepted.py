"""How many are rightly and wrongly accepted at each threshold, for many weights at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation.weighted import ratio, sums_by_bin


@dataclass(frozen=True, eq=False)
class AcceptCounts:
    """Weights of what is accepted at each of T thresholds, descending, in R resamples.

    Attributes:
      wrong: float64 `[T, R]`: the negatives that are accepted, 0 at first, rising along T.
      right: float64 `[D + 1, R]`: the positives, at the D thresholds where there are more of them
        than at the one before, after a 0.
      row: int64 `[T]`: the row of `right` of each threshold.
      positives, negatives: float64 `[R]`: all of each.
    """

    wrong: np.ndarray
    right: np.ndarray
    row: np.ndarray
    positives: np.ndarray
    negatives: np.ndarray

    def true_rate(self) -> np.ndarray:
        """`[T, R]`: the share of positives that are accepted; NaN without positives."""
        return ratio(self.right[self.row], self.positives)

    def false_rate(self) -> np.ndarray:
        """`[T, R]`: the share of negatives that are accepted; NaN without negatives."""
        return ratio(self.wrong, self.negatives)

    def auroc(self) -> np.ndarray:
        """`[R]`: the area under the polyline of the two rates.

        That of `Ranking.auroc`, but of sums that the other figures of pairs need anyway: another
        pass over all pairs would take half as long again.
        """
        at = np.flatnonzero(np.diff(self.row)) + 1
        # A positive is above the negatives that are accepted later, and ties count half.
        not_below = (self.wrong[at] + self.wrong[at - 1]) / 2
        wins = np.einsum("dr,dr->r", np.diff(self.right, axis=0), self.wrong[-1] - not_below)
        return ratio(wins, self.positives * self.negatives)

    def eer(self) -> np.ndarray:
        """`[R]`: the false rate where it equals 1 - the true rate, interpolated linearly."""
        whole, columns = self.positives * self.negatives, np.arange(len(self.positives))

        def excess(step: np.ndarray) -> np.ndarray:
            # In whole numbers: positives x negatives x (false rate + true rate - 1), rising.
            of_wrong = self.wrong[step, columns] * self.positives
            return of_wrong + self.right[self.row[step], columns] * self.negatives - whole

        last = len(self.wrong) - 1
        before = self._last_where(lambda step: excess(step) < 0)
        after = np.minimum(before + 1, last)
        low, high = excess(before), excess(after)
        from_, to = self.wrong[before, columns], self.wrong[after, columns]
        return ratio(from_ + ratio(-low, high - low) * (to - from_), self.negatives)

    def last_within(self, rate: float) -> np.ndarray:
        """int64 `[R]`: the lowest threshold whose false rate is at most `rate`."""
        # Weights are whole numbers: the margin only undoes the rounding of the product.
        return self._last_with(rate * self.negatives * (1 + 1e-12))

    def nearest(self, rate: float) -> np.ndarray:
        """int64 `[R]`: the threshold whose false rate is nearest to `rate`.

        Of two equally near ones that with the larger false rate; of one false rate the lowest.
        """
        below, columns = self.last_within(rate), np.arange(len(self.negatives))
        larger = self.wrong[np.minimum(below + 1, len(self.wrong) - 1), columns]
        target = rate * self.negatives
        farther = larger - target > (target - self.wrong[below, columns]) * (1 + 1e-12)
        return np.where(farther, below, self._last_with(larger))

    def _last_with(self, wrong: np.ndarray) -> np.ndarray:
        columns = np.arange(len(wrong))
        return self._last_where(lambda step: self.wrong[step, columns] <= wrong)

    def _last_where(self, holds: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """int64 `[R]`: the last step at which something holds that holds at 0 and until then."""
        low = np.zeros(len(self.negatives), np.int64)
        high = np.full_like(low, len(self.wrong))  # the first at which it does not
        while (high - low > 1).any():
            middle = (low + high) // 2
            yes = holds(middle)
            low, high = np.where(yes, middle, low), np.where(yes, high, middle)
        return low

    def rate_at(self, rate: float) -> np.ndarray:
        """`[R]`: the true rate at `last_within`; NaN without both kinds."""
        return self._true_rate(self.last_within(rate))

    def rate_near(self, rate: float) -> np.ndarray:
        """`[R]`: the true rate at `nearest`; NaN without both kinds."""
        return self._true_rate(self.nearest(rate))

    def _true_rate(self, step: np.ndarray) -> np.ndarray:
        found = ratio(self.right[self.row[step], np.arange(len(step))], self.positives)
        return np.where(self.negatives > 0, found, np.nan)


@dataclass(frozen=True, eq=False)
class AcceptSteps:
    """What has a score, sorted once.

    Attributes:
      thresholds: float64 `[T]`: infinity, which accepts none, and every distinct score, descending.
      wrong: SciPy CSR `[T, N]`: the negatives that have each score.
      right: SciPy CSR `[D + 1, N]`: the positives, by the D distinct scores that they have.
      row: int64 `[T]`: how many of these D are at or above each threshold.
      positive: bool `[N]`.
    """

    thresholds: np.ndarray
    wrong: Any
    right: Any
    row: np.ndarray
    positive: np.ndarray

    @classmethod
    def of(
        cls, scores: np.ndarray, positive: np.ndarray, acceptable: np.ndarray | None = None
    ) -> AcceptSteps:
        """From scores float64 `[N]` and bool `[N]`.

        Args:
          scores: of at least a threshold is accepted.
          positive: what is rightly accepted.
          acceptable: bool `[N]`: positives that are not are never found, though they count.
        """
        levels, rank = np.unique(scores, return_inverse=True)
        step = len(levels) - rank
        found = positive if acceptable is None else positive & acceptable
        count = len(levels) + 1
        row = np.cumsum(np.bincount(step[found], minlength=count) > 0)
        return cls(
            thresholds=np.concatenate([[np.inf], levels[::-1]]),
            wrong=sums_by_bin(np.where(positive, -1, step), count),
            right=sums_by_bin(np.where(found, row[step], -1), int(row[-1]) + 1),
            row=row,
            positive=positive,
        )

    def counts(self, weights: np.ndarray) -> AcceptCounts:
        """At weights float64 `[N, R]`."""
        wrong, right = self.wrong @ weights, self.right @ weights
        for counts in (wrong, right):
            np.cumsum(counts, axis=0, out=counts)  # in place: twice as fast as anew
        positives = self.positive.astype(np.float64) @ weights
        return AcceptCounts(wrong, right, self.row, positives, wrong[-1])


def check_resolved(rate: float, n: int, what: str, name: str) -> None:
    """Refuse a false rate that n negatives cannot show.

    Args:
      rate: asked for.
      n: negatives.
      what, name: of the negatives and of the rate, for the error.

    Raises:
      EvaluationError: the rate is not between 0 and 1, or below 1 / n.
    """
    if not 0 < rate < 1:
        raise EvaluationError(f"a {name} lies between 0 and 1, not at {rate:g}")
    if rate * n < 1 - 1e-9:
        raise EvaluationError(
            f"{n} {what} cannot show a {name} of {rate:g}: their least step is 1/{n} = "
            f"{1 / n:.2g}, and none accepted of so many, if independent, says only that it is "
            f"below 3/{n} = {min(1.0, 3 / n):.2g}; ask for a larger {name}, or give more"
        )
