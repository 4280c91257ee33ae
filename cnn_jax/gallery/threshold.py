"""The threshold of a gallery: pairs of its own images, and what was fitted on pairs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import numpy as np

from cnn_jax.decision import fit_threshold_far
from cnn_jax.errors import DataError, EvaluationError
from cnn_jax.evaluation import CalibrationPairScores
from cnn_jax.gallery.storage import Enrolled
from cnn_jax.gallery.templates import templates_of, without_each

# Impostor pairs that are looked at, at most: 1e5 resolve a rate of 1e-3 to a tenth of itself.
_PAIRS = 100_000
_SEED = 0


@dataclass(frozen=True)
class FittedThreshold:
    """The score from which on an image is taken to be of an identity, and how it was found.

    It holds counts and no names, so that who is removed from the gallery is not in it.

    Attributes:
      score: cosine, -1..1; a score of at least this is accepted.
      far: the false accept rate that was asked for, of an image and one wrong template.
      calibration_far, bound, confidence, impostor_pairs, disjoint_pairs: as of
        `decision.PairThreshold`.
      genuine_pairs, accepted: pairs of one identity, and how many of these are accepted.
      rule: how it was chosen, in words.
    """

    score: float
    far: float
    calibration_far: float
    bound: float
    confidence: float
    impostor_pairs: int
    disjoint_pairs: int
    genuine_pairs: int
    accepted: int
    rule: str

    def false_alarm(self, identities: int) -> float:
        """How often somebody who is not enrolled is given a name, at most, if `far` holds.

        He is compared with everybody: n times the rate of one comparison (Bonferroni), or 1.
        """
        return min(1.0, identities * self.far)

    def to_json(self) -> str:
        """Text for the file."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> FittedThreshold:
        """What `to_json` wrote.

        Raises:
          DataError: it is damaged.
        """
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError) as error:
            raise DataError(f"the threshold of the gallery is damaged: {error}") from error


def fit_threshold(
    pairs: CalibrationPairScores, *, far: float, confidence: float = 0.95, promised: bool = False
) -> FittedThreshold:
    """`decision.fit_threshold_far`, and what the threshold does with pairs of one identity.

    Raises:
      EvaluationError: as `fit_threshold_far`; among others a rate below 3 / the number of disjoint
        impostor pairs.
    """
    found = fit_threshold_far(pairs, far=far, confidence=confidence, promised=promised)
    return FittedThreshold(
        score=found.score,
        far=far,
        calibration_far=found.calibration_far,
        bound=found.bound,
        confidence=confidence,
        impostor_pairs=found.impostor_pairs,
        disjoint_pairs=found.disjoint_pairs,
        genuine_pairs=int(pairs.same.sum()),
        accepted=int(found.accepts(pairs.scores[pairs.same]).sum()),
        rule=found.rule,
    )


def enrolled_pairs(enrolled: Enrolled) -> CalibrationPairScores:
    """Pairs of what is enrolled, scored as a search would: an image against a template.

    Identities stand in a circle, in an order drawn with a fixed seed. Each image is compared with
    the templates of as many of the next ones as 100,000 pairs allow, so that every identity
    counts alike; already the nearest in the circle make as many disjoint pairs as there can be.
    And it is compared with its own identity's template from the other images, if there are any.

    Raises:
      EvaluationError: fewer than two identities.
    """
    count, images = len(enrolled.names), len(enrolled.units)
    if count < 2:
        raise EvaluationError(
            f"{count} identities are enrolled: a threshold is fitted on images of many (of 6 / FAR "
            "at least)"
        )
    units, quality, first = enrolled.units, enrolled.quality, enrolled.first
    templates = templates_of(units, quality, first)
    owner = np.repeat(np.arange(count), np.diff(np.append(first, images)))
    circle = np.random.Generator(np.random.Philox(_SEED)).permutation(count)
    place = np.argsort(circle)
    steps = min(count - 1, max(1, _PAIRS // images))
    others = [circle[(place[owner] + step) % count] for step in range(1, steps + 1)]
    scores = [np.einsum("nd,nd->n", units, templates[other], dtype=np.float64) for other in others]
    left = without_each(units, quality, first)
    paired = np.flatnonzero(left.any(axis=1))
    scores.append(np.einsum("nd,nd->n", units[paired], left[paired], dtype=np.float64))
    image = np.concatenate([np.tile(np.arange(images), steps), paired])
    template = np.concatenate([*others, owner[paired]])
    names = np.asarray(enrolled.names, np.str_)
    return CalibrationPairScores(
        split="calibration",
        images=np.column_stack(
            [
                np.char.add("image ", image.astype(str)),
                np.char.add("template ", template.astype(str)),
            ]
        ),
        scores=np.round(np.concatenate(scores), 12),
        same=owner[image] == template,
        subjects=np.column_stack([names[owner[image]], names[template]]),
    )
