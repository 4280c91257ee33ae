"""Intervals of figures of pairs, by resampling the people in them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation.estimate import Estimate
from cnn_jax.evaluation.intervals import Statistic, add_note, bootstrap, exact_where_alike
from cnn_jax.evaluation.verification_pairs import PairScores
from cnn_jax.evaluation.weighted import once, ratio


def pair_bootstrap(
    statistics: Mapping[str, Statistic],
    pairs: PairScores,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Each statistic of the pairs with its percentile interval over resamples of subjects.

    Pairs that share a person are not independent, so whole persons are drawn, as many as there
    are, with replacement, and keep all their pairs: a pair of two persons counts as often as the
    product of how often each was drawn, a pair of one person as often as that one was (the vertex
    bootstrap of Snijders and Borgatti 1999; for figures of verification Fogliato, Patil and Perona
    2024). Copies of a person are no impostors of each other.

    What belongs to a single pair, and to neither person, is counted threefold in the variance: 3
    is the variance of a product of two draws, where that of one is 1. Where every two persons are
    paired this hardly matters; in a list in which a person is in few pairs (LFW) intervals are
    too wide rather than too narrow, by at most a factor sqrt(3). Where no two pairs share a
    person the pairs are resampled, as they also are where subjects are not known; the method then
    says so.

    Args:
      statistics: name -> function of weights of pairs, float64 `[P, R]`.
      pairs: all the pairs that the statistics weigh.
      level, resamples, seed: as of `bootstrap`.

    Raises:
      EvaluationError: no pairs, a level outside (0, 1), or no resamples.
    """
    options = {"level": level, "resamples": resamples, "seed": seed}
    ends, n = pairs.groups, len(pairs)
    if ends is None or _none_shared(pairs):
        found = bootstrap(statistics, n, **options)  # type: ignore[arg-type]
        if ends is not None:
            return found
        note = "pairs taken as independent: subjects not known"
        return {name: add_note(estimate, note) for name, estimate in found.items()}
    of_one = np.flatnonzero(pairs.same)

    def products(weights: np.ndarray) -> np.ndarray:
        found = weights[::2] * weights[1::2]
        found[of_one] = weights[2 * of_one]
        return found

    of_pairs = once(products)

    def of_ends(statistic: Statistic) -> Statistic:
        return lambda weights: statistic(of_pairs(weights))

    found = bootstrap(
        {name: of_ends(statistic) for name, statistic in statistics.items()},
        2 * n,
        ends,
        **options,  # type: ignore[arg-type]
    )
    return {name: _of_subjects(estimate, n) for name, estimate in found.items()}


def _none_shared(pairs: PairScores) -> bool:
    """Whether each person is in one pair alone."""
    assert pairs.subjects is not None
    first, second = pairs.subjects.T
    return len(np.unique(np.concatenate([first, second[~pairs.same]]))) == (
        2 * len(pairs) - int(pairs.same.sum())
    )


def _of_subjects(estimate: Estimate, n: int) -> Estimate:
    method = estimate.method.replace("bootstrap", "subject bootstrap", 1)
    return replace(estimate, n=n, unit="group", method=method)


def share_of_pairs(
    holds: np.ndarray,
    pairs: PairScores,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """The share of pairs for which something holds, such as of impostor pairs that are accepted.

    Where it holds for none, or for all, there is nothing to resample. Then it does so too for
    pairs that are independent, and the interval is Clopper and Pearson's of these: see
    `exact_where_alike`.

    Args:
      holds: bool `[P]`.
      pairs: all of one kind, genuine or impostor; at least one.
      level, resamples, seed: as of `bootstrap`.
    """
    values = holds.astype(np.float64)

    def share(weights: np.ndarray) -> np.ndarray:
        return ratio(values @ weights, weights.sum(axis=0))

    found = pair_bootstrap({"": share}, pairs, level=level, resamples=resamples, seed=seed)[""]
    found = replace(found, percent=True)
    if not math.isnan(found.low):
        return found
    return exact_where_alike(found, *independent_pairs(pairs))


def independent_pairs(pairs: PairScores) -> tuple[int, str]:
    """How many pairs, all of one kind, are independent where people are, and what they are."""
    if pairs.groups is None:
        return len(pairs), "pairs, taken as independent"
    if pairs.same.all():
        return len(np.unique(pairs.groups)), "subjects"
    return len(disjoint_impostor_pairs(pairs)), "impostor pairs that share nobody"


def disjoint_impostor_pairs(pairs: PairScores) -> np.ndarray:
    """int64 `[M]`, ascending: impostor pairs of which no two share a subject.

    These are independent where people are, so that M is what a bound on the false accept rate
    may count. No score is looked at. The set is a greedy matching: subjects with few partners
    choose first, and choose the free partner who has fewest; of several pairs of the same two
    the first in the list is taken. It has floor(subjects / 2) pairs, the most there can be, where
    every two subjects are paired, and at least half of the most there can be in any list.

    Raises:
      EvaluationError: it is not known whose images the pairs are.
    """
    if pairs.groups is None:
        raise EvaluationError(
            f"whose images the pairs of {pairs.split!r} are is not known, so that those that share "
            "nobody cannot be counted: give `subjects`"
        )
    _, of_ends = np.unique(pairs.groups, return_inverse=True)
    ends = np.sort(of_ends.reshape(-1, 2), axis=1)
    impostor = np.flatnonzero(~pairs.same)
    count = int(of_ends.max(initial=-1)) + 1
    # Two people in one number, which sorts faster than pairs.
    edges, at = np.unique(ends[impostor] @ [count, 1], return_index=True)
    low, high = np.divmod(edges, max(count, 1))
    # Both directions of each edge, so that the partners of a subject are one slice.
    source, target = np.concatenate([low, high]), np.concatenate([high, low])
    row = np.concatenate([impostor[at]] * 2)
    partners = np.bincount(source, minlength=count)
    order = np.lexsort((target, partners[target], source))
    target, row = target[order], row[order]
    stops = np.cumsum(partners)
    free, taken = np.ones(count, bool), []
    for subject in np.argsort(partners, kind="stable").tolist():
        slice_ = slice(stops[subject] - partners[subject], stops[subject])
        open_ = free[target[slice_]]
        if free[subject] and open_.any():
            chosen = int(open_.argmax()) + slice_.start
            free[subject] = free[target[chosen]] = False
            taken.append(row[chosen])
    return np.sort(np.array(taken, np.int64))
