"""The ten-fold protocol of Labeled Faces in the Wild, as lists of pairs are reported by it.

Huang et al. (2007), view 2, as insightface and FaceNet evaluate LFW, CALFW, CPLFW, AgeDB-30 and
CFP-FP: the order of the pairs is the protocol, and each fold's threshold comes from the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation.accepted import check_resolved
from cnn_jax.evaluation.estimate import Estimate
from cnn_jax.evaluation.intervals import exact_where_alike
from cnn_jax.evaluation.verification_intervals import independent_pairs, pair_bootstrap
from cnn_jax.evaluation.verification_pairs import PairScores
from cnn_jax.evaluation.weighted import mean_of_defined, ratio, sums_by_bin

# Thresholds of the squared distance, 0..4, for accuracy and for TAR at a FAR.
THRESHOLDS = np.arange(0, 4, 0.01)
FINE_THRESHOLDS = np.arange(0, 4, 0.001)


@dataclass(frozen=True, eq=False)
class FoldFigure:
    """A figure of every fold, and what is made of the K of them.

    Attributes:
      values: float64 `[K]`, each of one fold at a threshold from the others.
      thresholds: float64 `[K]`, squared distances: a pair is accepted strictly below.
      false_accept_rates: float64 `[K]`, what each threshold gives on its own fold.
      estimate: the mean over folds with its interval over resamples of subjects, in each of which
        every threshold is chosen anew.
    """

    values: np.ndarray
    thresholds: np.ndarray
    false_accept_rates: np.ndarray
    estimate: Estimate

    @property
    def mean(self) -> float:
        """Over folds."""
        return float(self.values.mean())

    @property
    def population_std(self) -> float:
        """Over folds, divided by K: what insightface prints after +-."""
        return float(self.values.std())

    @property
    def standard_error(self) -> float:
        """Of the mean: the standard deviation over folds, divided by K - 1, over sqrt(K).

        It is what LFW's tables print after +- (Huang et al. 2007): of ten folds a third of
        `population_std`. Folds share the pairs their thresholds come from, and some share people.
        """
        return float(self.values.std(ddof=1)) / math.sqrt(len(self.values))


def fold_accuracy(
    pairs: PairScores,
    *,
    folds: int = 10,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> FoldFigure:
    """The accuracy of verification by the protocol.

    The distance of a pair is 2 - 2 cos, the squared one of embeddings of length 1; it is accepted
    where that is strictly below the threshold. The threshold of a fold is the first of 0, 0.01,
    .. 3.99 at which the accuracy on the *other* folds is greatest.

    Args:
      pairs: with cosines as scores, in the order of the protocol, and `fold`, or else blocks of
        equal length in that order.
      folds: how many, where the pairs have no `fold`.
      level, resamples, seed: of the interval.

    Raises:
      EvaluationError: scores that are no cosines, folds that are not 0, 0, .. 1, 1, .. in the
        order of the pairs, fewer than 2 folds, or a level or resamples out of range.
    """
    fold = _folds(pairs, folds)
    distance = _distances(pairs)
    count, steps = int(fold[-1]) + 1, len(THRESHOLDS)
    step = np.searchsorted(THRESHOLDS, distance, side="right")  # the first that accepts
    of_kind = [
        sums_by_bin(np.where(kind, fold * (steps + 1) + step, -1), count * (steps + 1))
        for kind in (pairs.same, ~pairs.same)
    ]

    def choose(weights: np.ndarray) -> tuple[np.ndarray, ...]:
        accepted = [
            np.cumsum((bins @ weights).reshape(count, steps + 1, -1), axis=1) for bins in of_kind
        ]
        genuine, impostors = (one[:, -1] for one in accepted)
        right = accepted[0][:, :-1] + (impostors[:, np.newaxis] - accepted[1][:, :-1])
        chosen = (right.sum(axis=0) - right).argmax(axis=1)[:, np.newaxis]
        of_fold = np.take_along_axis(right, chosen, axis=1)[:, 0]
        alarms = np.take_along_axis(accepted[1], chosen, axis=1)[:, 0]
        of_all = genuine + impostors
        accuracy = ratio(of_fold, of_all)
        # A resample may draw nobody of the other folds, who then choose no threshold.
        accuracy[of_all.sum(axis=0) == of_all] = np.nan
        return accuracy, THRESHOLDS[chosen[:, 0]], ratio(alarms, impostors)

    return _figure(choose, pairs, level, resamples, seed)


def fold_tar_at_far(
    pairs: PairScores,
    far: float = 1e-3,
    *,
    folds: int = 10,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> FoldFigure:
    """The TAR at a false accept rate by the protocol, which FaceNet calls validation rate.

    The threshold of a fold is where the FAR of the *other* folds, known at 0, 0.001, .. 3.999 and
    linear between these, is `far`: from the last of them with a FAR of at most `far` to the next.
    Where even the largest accepts too few it is 0, which accepts none. The FAR on the fold itself
    is another, and is given. (insightface leaves the interpolation to SciPy, which refuses a FAR
    that occurs at two thresholds, and one always does.)

    Args:
      pairs, folds, level, resamples, seed: as of `fold_accuracy`.
      far: false accept rate.

    Raises:
      EvaluationError: as `fold_accuracy`; a FAR that is not between 0 and 1 or that the impostor
        pairs of the other folds cannot show; or a fold without genuine or without impostor pairs.
    """
    fold = _folds(pairs, folds)
    distance = _distances(pairs)
    count, grid = int(fold[-1]) + 1, FINE_THRESHOLDS
    kinds = [np.bincount(fold[kind], minlength=count) for kind in (pairs.same, ~pairs.same)]
    if min(kind.min() for kind in kinds) == 0:
        raise EvaluationError(
            f"a fold of {pairs.split!r} has pairs of one kind alone: a TAR at a FAR needs genuine "
            "and impostor pairs in each"
        )
    others = int((kinds[1].sum() - kinds[1]).min())
    check_resolved(far, others, "impostor pairs of the other folds", "FAR")
    step = np.where(pairs.same, -1, np.searchsorted(grid, distance, side="right"))
    inside = [fold == k for k in range(count)]
    # Other folds' impostor pairs at their first step that accepts them, for each fold.
    of_others = [sums_by_bin(np.where(here, -1, step), len(grid) + 1) for here in inside]
    genuine, impostor = (kind.astype(np.float64) for kind in (pairs.same, ~pairs.same))

    def choose(weights: np.ndarray) -> tuple[np.ndarray, ...]:
        rows = []
        for here, bins in zip(inside, of_others, strict=True):
            alarms = bins @ weights
            np.cumsum(alarms, axis=0, out=alarms)
            line = _line_at(far * alarms[-1], alarms[:-1])
            accepted = weights[here] * (distance[here, np.newaxis] < line)
            found, wrong = (
                ratio(kind[here] @ accepted, kind[here] @ weights[here])
                for kind in (genuine, impostor)
            )
            rows.append((np.where(alarms[-1] > 0, found, np.nan), line, wrong))
        found, lines, wrong = (np.array(values) for values in zip(*rows, strict=True))
        return found, lines, wrong

    figure = _figure(choose, pairs, level, resamples, seed)
    independent = independent_pairs(pairs.take(pairs.same))
    return replace(figure, estimate=exact_where_alike(figure.estimate, *independent))


def _line_at(wanted: np.ndarray, alarms: np.ndarray) -> np.ndarray:
    """float64 `[R]`: the distance at which `alarms` `[T, R]`, rising, would be `wanted` `[R]`."""
    columns = np.arange(len(wanted))
    # Weights are whole numbers: the margin only undoes the rounding of the product.
    last = (alarms <= wanted * (1 + 1e-12)).sum(axis=0) - 1
    after = np.minimum(last + 1, len(alarms) - 1)
    low, high = alarms[last, columns], alarms[after, columns]
    part = np.where(high > low, ratio(np.maximum(wanted - low, 0), high - low), 0)
    line = FINE_THRESHOLDS[last] + part * (FINE_THRESHOLDS[after] - FINE_THRESHOLDS[last])
    return np.where(alarms[-1] * (1 + 1e-12) < wanted, 0, line)


def _figure(
    choose: Callable[[np.ndarray], tuple[np.ndarray, ...]],
    pairs: PairScores,
    level: float,
    resamples: int,
    seed: int,
) -> FoldFigure:
    """From values, thresholds and FARs of each fold, `[K, R]` each, as a function of weights."""
    values, lines, wrong = (of_fold[:, 0] for of_fold in choose(np.ones((len(pairs), 1))))
    found = pair_bootstrap(
        {"": lambda weights: mean_of_defined(choose(weights)[0])},
        pairs,
        level=level,
        resamples=resamples,
        seed=seed,
    )[""]
    return FoldFigure(values, lines, wrong, replace(found, percent=True))


def _folds(pairs: PairScores, folds: int) -> np.ndarray:
    """int64 `[P]`: the fold of each pair."""
    n = len(pairs)
    if pairs.fold is not None:
        steps = np.diff(pairs.fold, prepend=0)
        if n == 0 or pairs.fold[-1] < 1 or not np.isin(steps, (0, 1)).all():
            raise EvaluationError(
                f"the folds of {pairs.split!r} must be 0, 0, .. 1, 1, .. in the order of the "
                "pairs, which is part of the protocol: sort the pairs by fold"
            )
        return pairs.fold
    if not 2 <= folds <= n:
        raise EvaluationError(f"{n} pairs of {pairs.split!r} cannot be cut into {folds} folds")
    # As scikit-learn's KFold: the first ones are longer by one where the rest is not 0.
    sizes = n // folds + (np.arange(folds) < n % folds)
    return np.repeat(np.arange(folds), sizes)


def _distances(pairs: PairScores) -> np.ndarray:
    if len(pairs) and np.abs(pairs.scores).max() > 1:
        raise EvaluationError(
            f"scores of the pairs of {pairs.split!r} reach {np.abs(pairs.scores).max():.3g}, and "
            "the protocol is of cosines, within -1..1: see `pair_scores`"
        )
    return np.asarray(2 - 2 * pairs.scores, np.float64)
