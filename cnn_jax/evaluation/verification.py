"""Figures of verification: whether two images are of one person, from the scores of pairs.

A pair is accepted where its score is at least the threshold. FAR (false accept rate, FMR) is the
share of impostor pairs that are accepted, FRR (false reject rate, FNMR) that of genuine pairs
that are not, and TAR = 1 - FRR. Every interval resamples people: see `pair_bootstrap`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation.accepted import AcceptCounts, AcceptSteps, check_resolved
from cnn_jax.evaluation.estimate import Estimate
from cnn_jax.evaluation.intervals import Statistic, add_note, exact_where_alike
from cnn_jax.evaluation.verification_intervals import (
    independent_pairs,
    pair_bootstrap,
    share_of_pairs,
)
from cnn_jax.evaluation.verification_pairs import PairScores
from cnn_jax.evaluation.weighted import once

# The false accept rates of the tables of the field, of which those are given that the impostor
# pairs can resolve.
FARS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)


def verification_metrics(
    pairs: PairScores,
    *,
    fars: Sequence[float] | None = None,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """The figures of a list of pairs, in the order they are reported.

    - `auroc`: the probability that a genuine pair scores above an impostor pair, ties counting
      half.
    - `eer`: the equal error rate, where the line FAR = FRR meets the ROC polyline, whose corners
      are the thresholds at all distinct scores: between the two corners around it both rates are
      interpolated linearly.
    - `tar_at_far_F`: the conservative TAR, at the threshold that accepts most with a FAR of at
      most F. Nothing is interpolated: it can be had.
    - `tar_near_far_F`: the common one, of the threshold whose FAR is *nearest* to F (of two
      equally near the larger, of one FAR the largest TAR). Its FAR, which may be above F and
      flatter the TAR, is in the method. It is there to compare with published figures.

    10,000 resamples of LFW's 6,000 pairs take some seconds; the time grows with their product.

    Args:
      pairs: of both kinds.
      fars: the Fs; None for those of 0.1, 0.01, .. 1e-6 that the impostor pairs resolve.
      level, resamples, seed: of the intervals.

    Raises:
      EvaluationError: pairs of one kind alone, an F that is not between 0 and 1 or below 1 / n
        of n impostor pairs, or a level or resamples out of range.
    """
    pairs.check_both_kinds()
    impostors = int((~pairs.same).sum())
    if fars is None:
        fars = [far for far in FARS if far * impostors >= 1 - 1e-9]
    for far in fars:
        check_resolved(far, impostors, "impostor pairs", "FAR")
    counts = once(AcceptSteps.of(pairs.scores, pairs.same).counts)
    statistics: dict[str, Statistic] = {
        "auroc": lambda weights: counts(weights).auroc(),
        "eer": lambda weights: counts(weights).eer(),
    }
    for far in fars:
        statistics[f"tar_at_far_{far:g}"] = _rate(counts, AcceptCounts.rate_at, far)
        statistics[f"tar_near_far_{far:g}"] = _rate(counts, AcceptCounts.rate_near, far)
    found = pair_bootstrap(statistics, pairs, level=level, resamples=resamples, seed=seed)
    found["eer"] = replace(found["eer"], percent=True)
    whole = counts(np.ones((len(pairs), 1)))
    independent = independent_pairs(pairs.take(pairs.same))
    for far in fars:
        at, near = f"tar_at_far_{far:g}", f"tar_near_far_{far:g}"
        for name in (at, near):
            found[name] = exact_where_alike(replace(found[name], percent=True), *independent)
        realised = float(whole.false_rate()[whole.nearest(far), 0][0])
        found[near] = add_note(found[near], f"at FAR {realised:.3g}")
    return found


def _rate(
    counts: Callable[[np.ndarray], AcceptCounts],
    rate: Callable[[AcceptCounts, float], np.ndarray],
    far: float,
) -> Statistic:
    return lambda weights: rate(counts(weights), far)


@dataclass(frozen=True, eq=False)
class ErrorCurve:
    """Both error rates of every threshold: the points of a ROC or a DET curve.

    They are plain rates; the axes of a DET plot are their normal quantiles.

    Attributes:
      thresholds: float64 `[T]`: infinity, which accepts none, and every distinct score, descending.
      far, frr: float64 `[T]`, of accepting scores of at least the threshold.
      at: float64 `[G]`, ascending: false accept rates from the least that n impostor pairs
        resolve, 1 / n, to 1, ten in each decade.
      low, high: float64 `[G]`: the interval of the least FRR whose FAR is at most `at`, at each
        alone; NaN where no resample differs from another.
      level: of the interval.
    """

    thresholds: np.ndarray
    far: np.ndarray
    frr: np.ndarray
    at: np.ndarray
    low: np.ndarray
    high: np.ndarray
    level: float


def error_curve(
    pairs: PairScores, *, level: float = 0.95, resamples: int = 1000, seed: int = 0
) -> ErrorCurve:
    """FAR against FRR with a band over resamples of subjects.

    Raises:
      EvaluationError: pairs of one kind alone, or a level or resamples out of range.
    """
    pairs.check_both_kinds()
    steps = AcceptSteps.of(pairs.scores, pairs.same)
    counts = once(steps.counts)
    impostors = int((~pairs.same).sum())
    decades = int(np.floor(10 * np.log10(impostors) + 1e-9))
    at = 10 ** (np.arange(-decades, 1) / 10)

    def rejected(far: float) -> Statistic:
        return lambda weights: 1 - counts(weights).rate_at(far)

    band = pair_bootstrap(
        {str(k): rejected(far) for k, far in enumerate(at.tolist())},
        pairs,
        level=level,
        resamples=resamples,
        seed=seed,
    ).values()
    whole = counts(np.ones((len(pairs), 1)))
    return ErrorCurve(
        thresholds=steps.thresholds,
        far=whole.false_rate()[:, 0],
        frr=1 - whole.true_rate()[:, 0],
        at=at,
        low=np.array([estimate.low for estimate in band]),
        high=np.array([estimate.high for estimate in band]),
        level=level,
    )


def verification_rates(
    pairs: PairScores,
    threshold: float,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """`far` and `frr` of one threshold, which must come from other pairs.

    Args:
      pairs: a rate for which there are no pairs is left out.
      threshold: a score of at least this is accepted.
      level, resamples, seed: of the intervals, as of `share_of_pairs`.

    Raises:
      EvaluationError: no pairs, a threshold that is no number, or a level or resamples out of
        range.
    """
    if np.isnan(threshold):
        raise EvaluationError("the threshold is not a number")
    if len(pairs) == 0:
        raise EvaluationError(f"no pairs in {pairs.split!r} to judge a threshold by")
    found = {}
    for name, kind in (("far", ~pairs.same), ("frr", pairs.same)):
        if kind.any():
            some = pairs.take(kind)
            wrong = (some.scores >= threshold) != some.same
            found[name] = share_of_pairs(wrong, some, level=level, resamples=resamples, seed=seed)
    return found


@dataclass(frozen=True)
class SubgroupRow:
    """One subgroup of a table of error rates.

    Attributes:
      name: of the subgroup.
      subjects: how many of its subjects are in pairs within it.
      far: of impostor pairs within the subgroup; None where there are none. Those of two
        subgroups are easier and would hide a difference.
      frr: of genuine pairs of its subjects; None where there are none.
    """

    name: str
    subjects: int
    far: Estimate | None
    frr: Estimate | None


def verification_by_subgroup(
    pairs: PairScores,
    subgroup_of: Mapping[str, str],
    threshold: float,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[SubgroupRow, ...]:
    """The two error rates of one threshold within each subgroup of people, by name.

    Args:
      pairs: with subjects.
      subgroup_of: subject -> name of the subgroup, for every subject.
      threshold: a score of at least this is accepted; must come from other pairs.
      level, resamples, seed: of the intervals. They are of each subgroup alone.

    Raises:
      EvaluationError: it is not known whose images the pairs are, a subject has no subgroup, or
        as `verification_rates`.
    """
    if pairs.subjects is None or len(pairs) == 0:
        raise EvaluationError(f"a table of subgroups needs pairs of {pairs.split!r} with subjects")
    names = np.unique(pairs.subjects)
    without = [name for name in names.tolist() if name not in subgroup_of]
    if without:
        raise EvaluationError(
            f"{len(without)} of {len(names)} subjects, such as {without[0]!r}, have no subgroup: "
            "name one for each"
        )
    labels = np.array([subgroup_of[name] for name in names.tolist()], np.str_)
    of_pairs = labels[np.searchsorted(names, pairs.subjects)]
    rows = []
    for label in np.unique(labels).tolist():
        inside = pairs.take((of_pairs == label).all(axis=1))
        rates: dict[str, Estimate] = {}
        if len(inside):
            rates = verification_rates(
                inside, threshold, level=level, resamples=resamples, seed=seed
            )
        assert inside.groups is not None
        count = len(np.unique(inside.groups))
        rows.append(SubgroupRow(label, count, rates.get("far"), rates.get("frr")))
    return tuple(rows)
