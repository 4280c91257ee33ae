"""Figures of embeddings of people never seen: verification of all pairs, and identification."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation.accepted import AcceptSteps
from cnn_jax.evaluation.embedding_predictions import CalibrationEmbeddings, EmbeddingPredictions
from cnn_jax.evaluation.estimate import Estimate
from cnn_jax.evaluation.identification import Searches, cmc, ranks
from cnn_jax.evaluation.intervals import Measure, Statistic, bootstrap, exact_where_alike
from cnn_jax.evaluation.templates import unit_embeddings
from cnn_jax.evaluation.verification_pairs import PairScores, pair_scores
from cnn_jax.evaluation.weighted import once, ratio

# Of each kind: more pairs of the same people change no interval, and take minutes.
MOST_PAIRS = 200_000
RECOGNITION_LOWER_IS_BETTER = ("eer",)
# Those are reported that the impostor pairs resolve.
_FARS = (1e-2, 1e-3)
# 32 MB of float64 at a time.
_NUMBERS_AT_ONCE = 4_000_000


@dataclass(frozen=True, eq=False)
class PeoplePairs:
    """Every two images of a list, by whether they are of one person.

    Attributes:
      ends: int64 `[P, 2]`, positions; genuine pairs first.
      same: bool `[P]`.
      genuine, impostors: how many there are of each kind, of which at most `MOST_PAIRS` are taken.
    """

    ends: np.ndarray
    same: np.ndarray
    genuine: int
    impostors: int

    @property
    def note(self) -> str:
        """Of which pairs only some were drawn, or empty."""
        of_kinds = (("genuine", self.same, self.genuine), ("impostor", ~self.same, self.impostors))
        some = [
            f"{int(taken.sum()):,} of {total:,} {kind} pairs"
            for kind, taken, total in of_kinds
            if taken.sum() < total
        ]
        return f"{' and '.join(some)}, drawn at random" if some else ""


def people_pairs(subjects: np.ndarray, *, most: int = MOST_PAIRS) -> PeoplePairs:
    """All genuine and all impostor pairs, or of either kind a random subset of `most` of them.

    The subset is the same for the same list in the same order: figures of two networks are of
    the same pairs.

    Args:
      subjects: str `[N]`, who is on each image.
      most: pairs of each kind.
    """
    n, order = len(subjects), np.argsort(subjects, kind="stable")
    _, first, size = np.unique(subjects[order], return_index=True, return_counts=True)
    place, end = np.arange(n), np.repeat(first + size, size)
    own, others = end - place - 1, n - end
    genuine, impostor = _pairs_from(place + 1, own, most), _pairs_from(end, others, most)
    same = np.arange(len(genuine) + len(impostor)) < len(genuine)
    ends = order[np.concatenate([genuine, impostor])]
    return PeoplePairs(ends, same, int(own.sum()), int(others.sum()))


def _drawn(total: int, most: int) -> np.ndarray:
    """int64, ascending: 0..total - 1, or `most` of them at random, the same at each call."""
    if total <= most:
        return np.arange(total)
    return np.sort(np.random.default_rng(0).choice(total, most, replace=False))


def _pairs_from(start: np.ndarray, count: np.ndarray, most: int) -> np.ndarray:
    """int64 `[M, 2]`: i with each of the `count[i]` positions from `start[i]` on.

    Of more than `most` pairs some are `_drawn`, without making the others.
    """
    stops = np.cumsum(count)
    number = _drawn(int(count.sum()), most)
    left = np.searchsorted(stops, number, side="right")
    return np.column_stack([left, start[left] + number - (stops - count)[left]]).astype(np.int64)


def recognition_pairs(predictions: EmbeddingPredictions) -> PairScores:
    """The cosines of `people_pairs`; of a validation split `CalibrationPairScores`.

    Raises:
      EvaluationError: an embedding of no length.
    """
    return _scores(predictions, people_pairs(predictions.subjects))


def _scores(predictions: EmbeddingPredictions, pairs: PeoplePairs) -> PairScores:
    return pair_scores(
        predictions.embeddings,
        pairs.ends,
        split=predictions.split,
        ids=predictions.ids,
        subjects=predictions.subjects,
        run_digest=predictions.run_digest,
    )


def leave_one_out(predictions: EmbeddingPredictions) -> Searches:
    """Each image looked for among all others, by cosine.

    An image is mated where its person is on another one; its mate is the most alike of these.

    Raises:
      EvaluationError: an embedding of no length.
    """
    unit, subjects = unit_embeddings(predictions.embeddings), predictions.subjects
    n = len(unit)
    _, person = np.unique(subjects, return_inverse=True)
    mated = np.bincount(person)[person] > 1
    scores, above, ties = np.empty(n), np.zeros(n, np.int64), np.zeros(n, np.int64)
    chunk = max(1, _NUMBERS_AT_ONCE // max(1, n))
    for start in range(0, n, chunk):
        rows = np.arange(start, min(start + chunk, n))
        cosine = np.round(unit[rows] @ unit.T, 12)
        cosine[np.arange(len(rows)), rows] = -np.inf
        own = person[rows, None] == person[None, :]
        mate = np.where(own, cosine, -np.inf).max(axis=1, keepdims=True)
        others = np.where(own, -np.inf, cosine)
        above[rows] = (others > mate).sum(axis=1)
        ties[rows] = (others == mate).sum(axis=1)
        scores[rows] = np.where(mated[rows], mate[:, 0], others.max(axis=1))
    above[~mated], ties[~mated] = 0, 0
    return Searches(predictions.split, predictions.ids, subjects, mated, scores, above, ties, n - 1)


def recognition_metrics(
    predictions: EmbeddingPredictions,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """The figures of a run whose test people it has never seen, in the order they are reported.

    - `eer`, `auroc`, `tar_at_far_0.01` and `tar_at_far_0.001`: of all pairs of images, see
      `verification_metrics`; a rate that the impostor pairs cannot resolve is left out. Of more
      than `MOST_PAIRS` pairs of a kind a fixed random subset is taken, and the method says so.
    - `rank1`: the share of images whose most alike other image is of the same person, of those
      whose person is on another image; a tie with another person is a miss.

    Every interval resamples people.

    Args:
      predictions: of people of whom some have two images.
      level, resamples, seed: of the intervals.

    Raises:
      EvaluationError: no genuine or no impostor pair, an embedding of no length, or a level or
        resamples out of range.
    """
    options = {"level": level, "resamples": resamples, "seed": seed}
    searches = leave_one_out(predictions)
    figures = recognition_statistics(predictions, searches)
    found = bootstrap(
        {name: figure.statistic for name, figure in figures.items() if name != "rank1"},
        len(predictions),
        predictions.subjects,
        **options,  # type: ignore[arg-type]
    )
    # Whoever has a single image is in no genuine pair.
    pairs = people_pairs(predictions.subjects)
    people = len(np.unique(predictions.subjects[pairs.ends[pairs.same]]))
    for name, estimate in found.items():
        figure = figures[name]
        estimate = replace(estimate, n=figure.n, unit="group", percent=figure.percent)
        if name.startswith("tar"):
            estimate = exact_where_alike(estimate, people, "subjects")
        method = estimate.method.replace("bootstrap", "subject bootstrap", 1)
        method += f"; {figure.note}" if figure.note else ""
        found[name] = replace(estimate, method=method)
    # A share, whose interval is exact where nobody is missed.
    best = cmc(searches, max_rank=1, **options).rate[0]  # type: ignore[arg-type]
    return {**found, "rank1": best}


def recognition_statistics(
    predictions: EmbeddingPredictions, searches: Searches | None = None
) -> dict[str, Measure]:
    """The figures of `recognition_metrics` as functions of weights of the images.

    Images of one person must have one weight, as they have where people are resampled: a pair of
    two persons then counts as often as the product of the two weights, a pair of one person as
    often as that weight (see `pair_bootstrap`).

    Args:
      predictions: of people of whom some have two images.
      searches: `leave_one_out` of them, where it is made already.

    Raises:
      EvaluationError: no genuine or no impostor pair, or an embedding of no length.
    """
    pairs = people_pairs(predictions.subjects)
    scored = _scores(predictions, pairs)
    scored.check_both_kinds()
    rates, steps = _fars(pairs), AcceptSteps.of(scored.scores, scored.same)
    searches = leave_one_out(predictions) if searches is None else searches
    mated, first = searches.mated, ranks(searches) <= 1
    a, b = pairs.ends.T

    def of_columns(weights: np.ndarray) -> dict[str, np.ndarray]:
        of_pairs = weights[a]
        of_pairs[~pairs.same] *= weights[b[~pairs.same]]
        counts = steps.counts(of_pairs)
        return {
            "eer": counts.eer(),
            "auroc": counts.auroc(),
            **{f"tar_at_far_{far:g}": counts.rate_at(far) for far in rates},
            "rank1": ratio(first @ weights, mated @ weights),
        }

    def of_all(weights: np.ndarray) -> dict[str, np.ndarray]:
        columns = max(1, _NUMBERS_AT_ONCE // len(a))
        parts = [
            of_columns(weights[:, start : start + columns])
            for start in range(0, weights.shape[1], columns)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    shared = once(of_all)

    def figure(name: str) -> Statistic:
        return lambda weights: shared(weights)[name]

    images = len(predictions)
    names = ["eer", "auroc", *(f"tar_at_far_{far:g}" for far in rates)]
    found = {
        name: Measure(figure(name), images, len(scored), name != "auroc", pairs.note)
        for name in names
    }
    return {**found, "rank1": Measure(figure("rank1"), images, int(mated.sum()), True)}


def recognition_score(predictions: EmbeddingPredictions) -> dict[str, float]:
    """What a choice of state sees: `loss`, the smaller the better, and `accuracy`.

    `accuracy` is 1 - EER of all pairs. With few people the EER is soon 0, and one epoch no better
    than another; so `loss` is the EER that normally distributed scores of the same means m and
    standard deviations s would have, F((m_impostor - m_genuine) / (s_impostor + s_genuine)), F
    the normal distribution (Poh and Bengio 2004, from their F-ratio), which goes on falling.

    Raises:
      EvaluationError: the embeddings are not of a part to choose on; no genuine or no impostor
        pair; or an embedding of no length.
    """
    if not isinstance(predictions, CalibrationEmbeddings):
        raise EvaluationError(
            f"a choice of state sees the validation part, not {predictions.split!r}"
        )
    scored = recognition_pairs(predictions)
    scored.check_both_kinds()
    counts = AcceptSteps.of(scored.scores, scored.same).counts(np.ones((len(scored), 1)))
    genuine, impostor = scored.scores[scored.same], scored.scores[~scored.same]
    gap, spread = genuine.mean() - impostor.mean(), genuine.std() + impostor.std()
    distance = gap / spread if spread > 0 else math.copysign(math.inf, gap) if gap else 0.0
    loss = math.erfc(distance / math.sqrt(2)) / 2
    return {"loss": loss, "accuracy": 1 - float(counts.eer()[0])}


def _fars(pairs: PeoplePairs) -> list[float]:
    taken = int((~pairs.same).sum())
    return [far for far in _FARS if far * taken >= 1 - 1e-9]


def check_people(subjects: np.ndarray, split: str) -> None:
    """Raise EvaluationError unless there are two people, and one with two images."""
    _, count = np.unique(subjects, return_counts=True)
    if len(count) < 2 or count.max() < 2:
        raise EvaluationError(
            f"the {len(count)} people of {split!r} have {int(count.max(initial=0))} images each at "
            "most: recognition is judged by two images of one person and by those of others; hold "
            "out more people"
        )
