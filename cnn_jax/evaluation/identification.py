"""Figures of identification: who somebody is, among the templates of a gallery.

A probe is *mated* where its subject is in the gallery. Closed-set figures are of mated probes
alone; open-set ones also need non-mated probes, which nobody should be found for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation.accepted import AcceptSteps, check_resolved
from cnn_jax.evaluation.estimate import Estimate
from cnn_jax.evaluation.intervals import (
    Statistic,
    Units,
    add_note,
    bootstrap,
    exact_where_alike,
    share_of,
)
from cnn_jax.evaluation.templates import Templates, unit_embeddings
from cnn_jax.evaluation.weighted import Ranking, once

Ties = Literal["pessimistic", "mean", "optimistic"]

# 32 MB of float64 scores at a time.
_SCORES_AT_ONCE = 4_000_000


@dataclass(frozen=True, eq=False)
class Searches:
    """What came of looking for every probe in a gallery with one template for each subject.

    Attributes:
      split: name of the split of the probes.
      ids: str `[N]`, distinct.
      subjects: str `[N]`, who each probe is; what a bootstrap resamples.
      mated: bool `[N]`: whether that subject is in the gallery.
      scores: float64 `[N]`: of the mate (the template of the subject), higher for what is more
        alike; of non-mated probes the highest of all templates.
      above, ties: int64 `[N]`: other templates that score above the mate, and equal to it; 0 for
        non-mated probes.
      gallery: number of templates.

    Raises:
      EvaluationError: lengths differ, or an id repeats.
    """

    split: str
    ids: np.ndarray
    subjects: np.ndarray
    mated: np.ndarray
    scores: np.ndarray
    above: np.ndarray
    ties: np.ndarray
    gallery: int

    def __post_init__(self) -> None:
        n = len(self.ids)
        rows = (self.subjects, self.mated, self.scores, self.above, self.ties)
        if any(row.shape != (n,) for row in rows) or len(np.unique(self.ids)) != n:
            raise EvaluationError(f"{n} probes of {self.split!r} need as many subjects and ids")

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def of_scores(
        cls,
        scores: np.ndarray,
        *,
        split: str,
        ids: np.ndarray,
        subjects: np.ndarray,
        gallery: np.ndarray,
    ) -> Searches:
        """From the score of each probe with each template.

        Args:
          scores: float `[N, G]`, higher for what is more alike.
          split: name of the split of the probes.
          ids: str `[N]`, of the probes, distinct.
          subjects: str `[N]`, who each probe is.
          gallery: str `[G]`, whose template each is, distinct.

        Raises:
          EvaluationError: shapes that do not fit, an id twice, a subject twice in the gallery, no
            template, or a score that is not finite.
        """
        rows, gallery = np.asarray(scores, np.float64), _gallery(gallery)
        ids, subjects = np.asarray(ids, np.str_), np.asarray(subjects, np.str_)
        if not rows.shape == (len(ids), len(gallery)) == (len(subjects), len(gallery)):
            raise EvaluationError(
                f"scores {list(rows.shape)} are not of {len(ids)} probes, {len(subjects)} subjects "
                f"and {len(gallery)} templates"
            )
        if not np.isfinite(rows).all():
            raise EvaluationError(
                f"{int((~np.isfinite(rows).all(axis=1)).sum())} probes of {split!r} have scores "
                "that are not finite: look at the embeddings"
            )
        mated, of_mates, above, ties = _mates(rows, subjects, gallery)
        return cls(split, ids, subjects, mated, of_mates, above, ties, len(gallery))


def search(
    embeddings: np.ndarray,
    templates: Templates,
    *,
    split: str,
    ids: np.ndarray,
    subjects: np.ndarray,
) -> Searches:
    """Look for every probe in a gallery, by the cosine of embedding and template.

    Cosines are rounded to 12 places, so that equal templates are ties, whatever the order of the
    sum. Memory does not grow with the number of probes times that of templates.

    Args:
      embeddings: float `[N, D]`, normalised here.
      templates: of the gallery.
      split, ids, subjects: as of `Searches.of_scores`.

    Raises:
      EvaluationError: as `Searches.of_scores` and `unit_embeddings`, or another D.
    """
    unit, gallery = unit_embeddings(embeddings), _gallery(templates.names)
    ids, subjects = np.asarray(ids, np.str_), np.asarray(subjects, np.str_)
    if unit.shape[1] != templates.embeddings.shape[1]:
        raise EvaluationError(
            f"probes have {unit.shape[1]} dimensions and templates "
            f"{templates.embeddings.shape[1]}: take both from one network"
        )
    if not len(unit) == len(subjects) == len(ids):
        raise EvaluationError(f"{len(unit)} probes of {split!r} need as many subjects and ids")
    chunk = max(1, _SCORES_AT_ONCE // len(gallery))
    found = []
    for start in range(0, max(1, len(unit)), chunk):
        part = slice(start, start + chunk)
        cosines = np.round(unit[part] @ templates.embeddings.T, 12)
        found.append(_mates(cosines, subjects[part], gallery))
    mated, scores, above, ties = (np.concatenate(column) for column in zip(*found, strict=True))
    return Searches(split, ids, subjects, mated, scores, above, ties, len(gallery))


def _gallery(names: np.ndarray) -> np.ndarray:
    names = np.asarray(names, np.str_)
    if names.ndim != 1 or len(names) == 0 or len(np.unique(names)) != len(names):
        raise EvaluationError(
            "a gallery has one template for each of its subjects, one or more: see `make_templates`"
        )
    return names


def _mates(scores: np.ndarray, subjects: np.ndarray, gallery: np.ndarray) -> tuple[np.ndarray, ...]:
    """`mated`, `scores`, `above` and `ties` of some probes."""
    order = np.argsort(gallery)
    place = np.minimum(np.searchsorted(gallery[order], subjects), len(gallery) - 1)
    mate = order[place]
    mated = gallery[mate] == subjects
    of_mate = np.take_along_axis(scores, mate[:, np.newaxis], axis=1)
    above = np.where(mated, (scores > of_mate).sum(axis=1), 0)
    ties = np.where(mated, (scores == of_mate).sum(axis=1) - 1, 0)
    return mated, np.where(mated, of_mate[:, 0], scores.max(axis=1)), above, ties


def ranks(searches: Searches, ties: Ties = "pessimistic") -> np.ndarray:
    """float64 `[N]`: the rank of each probe's mate, 1 for the best; infinity for non-mated probes.

    Args:
      searches: of all probes.
      ties: what templates that score as the mate does count: above it (`pessimistic`), below it
        (`optimistic`), or half (`mean`). A network that says the same of everybody has a rank-1
        rate of 0, 1 and about 0.

    Raises:
      EvaluationError: no such policy.
    """
    if ties not in get_args(Ties):
        raise EvaluationError(f"ties are {', '.join(get_args(Ties))}, not {ties!r}")
    share = {"pessimistic": 1.0, "mean": 0.5, "optimistic": 0.0}[ties]
    return np.where(searches.mated, 1 + searches.above + share * searches.ties, np.inf)


@dataclass(frozen=True, eq=False)
class Cmc:
    """Cumulative match characteristic: the share of mated probes whose mate ranks so high.

    Attributes:
      rank: int64 `[K]`: 1, 2, .. K.
      rate: share of mated probes with that rank or a better one, an estimate for each.
      ties: how ties were counted.
    """

    rank: np.ndarray
    rate: tuple[Estimate, ...]
    ties: Ties


def cmc(
    searches: Searches,
    *,
    max_rank: int = 20,
    ties: Ties = "pessimistic",
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Cmc:
    """The closed-set figures: `rate[0]` is the rank-1 rate.

    Intervals are over probes' subjects, the gallery being as it is.

    Args:
      searches: of which non-mated probes are left out.
      max_rank: K, at most the size of the gallery is used.
      ties: see `ranks`.
      level, resamples, seed: of the intervals, as of `share_of`.

    Raises:
      EvaluationError: no mated probe, a rank below 1, no such policy, or a level or resamples out
        of range.
    """
    rank = ranks(searches, ties)
    mated = searches.mated
    if not mated.any():
        raise EvaluationError(f"no probe of {searches.split!r} is of a subject in the gallery")
    if max_rank < 1:
        raise EvaluationError(f"ranks begin at 1, not at {max_rank}")
    at = np.arange(1, min(max_rank, searches.gallery) + 1)
    units = Units.of(len(searches), searches.subjects)
    options = {"level": level, "resamples": resamples, "seed": seed}
    rates = [share_of(rank[mated] <= k, units, mated, **options) for k in at]  # type: ignore[arg-type]
    return Cmc(at, tuple(rates), ties)


def open_set_metrics(
    searches: Searches,
    *,
    fpirs: Sequence[float] = (0.1, 0.01),
    rank: int = 1,
    ties: Ties = "pessimistic",
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """`dir_at_fpir_F` of each F: the share of mated probes that are found, where few others are.

    And `oscr`, the area under that share over all FPIRs.

    FPIR(t) is the share of *non-mated* probes of which some template scores at least t, and
    DIR(t) the share of mated probes whose mate has at least the rank and scores at least t (TPIR,
    Grother et al., FRVT 1:N). The threshold accepts most with an FPIR of at most F; it comes from
    non-mated probes alone, never from the wrong templates of mated ones, of whom other people
    are in the gallery. In each resample of subjects it is chosen anew. Nothing is interpolated.

    With classes for templates, these are the figures of a classifier that is to know what is none
    of its classes: DIR at rank 1 is the correct classification rate and FPIR the false positive
    rate of the open-set classification rate curve (OSCR, Dhamija et al. 2018). Its area is the
    probability that a mated probe is found and scores above a non-mated one, ties counting half; a
    network whose scores say nothing of that has half of the rank-1 rate.

    Args:
      searches: of mated and non-mated probes.
      fpirs: the Fs.
      rank: the mate must have this rank or a better one.
      ties: see `ranks`.
      level, resamples, seed: of the intervals, over probes' subjects.

    Returns:
      name -> estimate; the method names the threshold.

    Raises:
      EvaluationError: no mated or no non-mated probe, an F that is not between 0 and 1 or below
        1 / n of n non-mated probes, a rank below 1, no such policy, or a level or resamples out of
        range.
    """
    mated = searches.mated
    if mated.all() or not mated.any():
        which = "non-mated" if mated.all() else "mated"
        raise EvaluationError(
            f"no {which} probe in {searches.split!r}: an open-set figure needs probes whose "
            "subjects are in the gallery and others whose are not"
        )
    if rank < 1:
        raise EvaluationError(f"ranks begin at 1, not at {rank}")
    for fpir in fpirs:
        check_resolved(fpir, int((~mated).sum()), "non-mated probes", "FPIR")
    found_first = ranks(searches, ties) <= rank
    steps = AcceptSteps.of(searches.scores, mated, found_first)
    counts = once(steps.counts)
    # A mated probe that is not found is below every other.
    area = Ranking.of(np.where(found_first | ~mated, searches.scores, -np.inf), mated)

    def found_at(fpir: float) -> Statistic:
        return lambda weights: counts(weights).rate_at(fpir)

    n = len(searches)
    found = bootstrap(
        {f"dir_at_fpir_{fpir:g}": found_at(fpir) for fpir in fpirs} | {"oscr": area.auroc},
        n,
        searches.subjects,
        level=level,
        resamples=resamples,
        seed=seed,
    )
    whole, people = counts(np.ones((n, 1))), len(np.unique(searches.subjects[mated]))
    for fpir in fpirs:
        name = f"dir_at_fpir_{fpir:g}"
        line = float(steps.thresholds[whole.last_within(fpir)[0]])
        estimate = exact_where_alike(replace(found[name], percent=True), people, "subjects")
        found[name] = add_note(estimate, f"threshold {line:.6g}")
    return found
