"""A threshold of verification for a wanted false accept rate, from pairs of people held back."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cnn_jax.decision.fitted import FittedOn
from cnn_jax.decision.order_statistics import allowed_beyond, highest_rate
from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation.estimate import Estimate
from cnn_jax.evaluation.intervals import check_level
from cnn_jax.evaluation.verification import verification_rates
from cnn_jax.evaluation.verification_intervals import disjoint_impostor_pairs
from cnn_jax.evaluation.verification_pairs import (
    CalibrationPairScores,
    PairScores,
    check_calibration_pairs,
)


@dataclass(frozen=True)
class PairThreshold:
    """Two images are taken to be of one person where their score is at least `score`.

    Attributes:
      score: the threshold.
      far: the false accept rate that was asked for.
      promised: whether the true one is at most `far` with the `confidence`, over calibrations.
      calibration_far: the share of all impostor pairs of the calibration that are accepted.
      bound: the true false accept rate is at most this, with the `confidence`.
      confidence: of the bound.
      impostor_pairs: how many there were.
      disjoint_pairs: of these no two share a person; what the bound counts.
      rule: how it was chosen, in words.
      fitted_on: the images and people of the calibration.
    """

    score: float
    far: float
    promised: bool
    calibration_far: float
    bound: float
    confidence: float
    impostor_pairs: int
    disjoint_pairs: int
    rule: str
    fitted_on: FittedOn

    def accepts(self, scores: np.ndarray) -> np.ndarray:
        """Which scores float `[N]` are accepted, as bool `[N]`."""
        return np.asarray(scores >= self.score)

    def figures(
        self,
        pairs: PairScores,
        *,
        level: float = 0.95,
        resamples: int = 1000,
        seed: int = 0,
    ) -> dict[str, Estimate]:
        """`far` and `frr` on pairs of other people: see `verification_rates`.

        Raises:
          EvaluationError: images or people are among those it was chosen on; or as
            `verification_rates`.
        """
        self.fitted_on.check_apart(pairs, "the threshold")
        return verification_rates(pairs, self.score, level=level, resamples=resamples, seed=seed)


def fit_threshold_far(
    pairs: CalibrationPairScores,
    *,
    far: float,
    confidence: float = 0.95,
    promised: bool = False,
) -> PairThreshold:
    """The lowest threshold that accepts at most a share `far` of the impostor pairs.

    It lies in the middle of the gap between the highest impostor score that must be rejected and
    the next score above it. All impostor pairs choose it; but n people make up to n (n - 1) / 2
    of these pairs, which depend on each other, and say as much about new people as the few that
    share nobody: `disjoint_impostor_pairs`, m of them, found greedily and without looking at a
    score; there are n / 2 where every two are paired. With none accepted of m the rate is at most
    3 / m (at 95 %), so that a smaller `far` is refused.

    The bound is that of Clopper and Pearson for as many of the m as are accepted. It holds
    exactly where the threshold is one of the m scores, whichever (Wilks 1941), or has nothing to
    do with them, and is of pairs of two new people, an image each.

    Without a promise the true rate is above `far` about as often as not. With one the threshold
    is raised until at most `allowed_beyond` of the m are accepted, and the true rate is at most
    `far` with the confidence over calibrations.

    Args:
      pairs: with subjects; of people that the network has not learned.
      far: wanted false accept rate, between 0 and 1.
      confidence: of the bound and of the promise.
      promised: see above.

    Raises:
      EvaluationError: pairs of another type, or whose subjects are not known; no impostor pair;
        a rate or confidence that is not between 0 and 1; a rate below 3 / m; or m too small for
        the promise.
    """
    check_calibration_pairs(pairs, "a threshold")
    check_level(confidence)
    if not 0 < far < 1:
        raise EvaluationError(f"a wanted false accept rate lies between 0 and 1, not at {far:g}")
    rows = disjoint_impostor_pairs(pairs)
    m, impostors = len(rows), np.sort(pairs.scores[~pairs.same])
    assert pairs.groups is not None
    people = frozenset(str(name) for name in pairs.groups)
    if far * m < 3 - 1e-9:
        least = math.ceil(3e4 / m) / 1e4 if m > 3 else None  # rounded up, so that it is taken
        advice = f"; ask for at least {least:g}, or give more people" if least else ""
        raise EvaluationError(
            f"the {len(people)} people of {pairs.split!r} make {len(impostors)} impostor pairs, "
            f"of which {m} that share nobody were found: these cannot show a false accept rate of "
            f"{far:g}, for which {math.ceil(3 / far - 1e-9)} are needed (twice as many people)"
            + advice
        )
    last = impostors[len(impostors) - 1 - math.floor(far * len(impostors) + 1e-9)]
    rule = f"FAR of {100 * far:g} % of all impostor pairs"
    independent = np.sort(pairs.scores[rows])
    if promised:
        last = max(last, independent[m - 1 - allowed_beyond(m, far, confidence)])
        rule += f", and of new ones with confidence {100 * confidence:g} %"
    above = pairs.scores[pairs.scores > last]
    line = math.nextafter(float(last), math.inf)  # where the middle rounds to `last`
    if len(above):
        line = max(line, (float(last) + float(above.min())) / 2)
    accepted = int((independent >= line).sum())
    ids = frozenset(str(name) for name in pairs.ids)
    return PairThreshold(
        score=line,
        far=far,
        promised=promised,
        calibration_far=float((impostors >= line).mean()),
        bound=highest_rate(accepted, m, confidence),
        confidence=confidence,
        impostor_pairs=len(impostors),
        disjoint_pairs=m,
        rule=rule,
        fitted_on=FittedOn(pairs.split, len(ids), len(people), ids, people),
    )
