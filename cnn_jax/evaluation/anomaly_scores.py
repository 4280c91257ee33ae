"""`AnomalyScores`: how anomalous a detector found every image of a split, written once."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation.examples import UNREADABLE, check_may_calibrate, class_to_load
from cnn_jax.evaluation.predictions import CALIBRATION_SPLITS
from cnn_jax.whole_files import whole_file


@dataclass(frozen=True, eq=False)
class AnomalyScores:
    """Scores of every image of one split, each exactly once.

    Attributes:
      split: name of the split.
      ids: str `[N]`.
      scores: float64 `[N]`, higher for what is more anomalous.
      anomalous: bool `[N]`, what is so; None where it is not known.
      groups: str `[N]` or None; what a bootstrap resamples, and a promise counts.
      run_digest: digest of what made them (features, detector).

    Raises:
      EvaluationError: shapes or types do not fit, an id repeats, or a score is not finite.
    """

    split: str
    ids: np.ndarray
    scores: np.ndarray
    anomalous: np.ndarray | None = None
    groups: np.ndarray | None = None
    run_digest: str = ""

    def __post_init__(self) -> None:
        n = len(self.ids)
        if self.scores.shape != (n,) or self.scores.dtype != np.float64:
            raise EvaluationError(
                f"scores of {self.split!r} are {self.scores.dtype} {list(self.scores.shape)}, not "
                f"float64 [{n}]: give one for each image"
            )
        truth = self.anomalous
        if truth is not None and (truth.shape != (n,) or truth.dtype != np.bool_):
            raise EvaluationError(
                f"what is anomalous in {self.split!r} is {truth.dtype} {list(truth.shape)}, not "
                f"bool [{n}]"
            )
        if self.groups is not None and len(self.groups) != n:
            raise EvaluationError(f"groups of {self.split!r} are not {n} long")
        if len(np.unique(self.ids)) != n:
            raise EvaluationError(f"an image of {self.split!r} was scored twice")
        if not np.isfinite(self.scores).all():
            bad = int((~np.isfinite(self.scores)).sum())
            raise EvaluationError(
                f"{bad} of {n} scores of {self.split!r} are not finite: look at the features that "
                "the detector was given"
            )

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: np.ndarray) -> Self:
        """The scores at these positions, int64 or bool `[M]`."""
        return replace(
            self,
            ids=self.ids[rows],
            scores=self.scores[rows],
            anomalous=None if self.anomalous is None else self.anomalous[rows],
            groups=None if self.groups is None else self.groups[rows],
        )

    def normal(self) -> Self:
        """The scores of the normal images.

        Raises:
          EvaluationError: it is not known which these are.
        """
        return self.take(~self.truth())

    def truth(self) -> np.ndarray:
        """bool `[N]`: which images are anomalous.

        Raises:
          EvaluationError: it is not known.
        """
        if self.anomalous is None:
            raise EvaluationError(
                f"it is not known which images of {self.split!r} are anomalous: give `anomalous`"
            )
        return self.anomalous

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an `.npz` without pickles; the file appears whole or not at all."""
        arrays = {
            "ids": np.asarray(self.ids, dtype=np.str_),
            "scores": self.scores,
            "split": np.asarray(self.split),
            "kind": np.asarray("anomaly"),
            "run_digest": np.asarray(self.run_digest),
        }
        if self.anomalous is not None:
            arrays["anomalous"] = self.anomalous
        if self.groups is not None:
            arrays["groups"] = np.asarray(self.groups, dtype=np.str_)
        with whole_file(path) as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote; of a validation or calibration split `CalibrationScores`.

        Called on `CalibrationScores`, this is the same promise as their constructor.

        Raises:
          EvaluationError: the file is missing or damaged, holds no scores, or those of a split
            of which there are none.
        """
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as z:
                if (kind := str(z["kind"])) != "anomaly":
                    raise EvaluationError(f"it holds targets of kind {kind!r}, not scores")
                split = str(z["split"])
                return class_to_load(cls, scores_type(split))(
                    split=split,
                    ids=z["ids"],
                    scores=z["scores"],
                    anomalous=z.get("anomalous"),
                    groups=z.get("groups"),
                    run_digest=str(z["run_digest"]),
                )
        except UNREADABLE as error:
            raise EvaluationError(f"cannot read scores {str(path)!r}: {error}") from error


@dataclass(frozen=True, eq=False)
class CalibrationScores(AnomalyScores):
    """Scores that a threshold may be fitted on.

    A type of its own for the reason that `CalibrationPredictions` are: nothing can then be fitted
    on the part that figures are reported on, nor on images that the detector remembers and finds
    too normal. Scores of the splits `validation` and `calibration` are; of data under another
    name one makes them by this constructor, which is the promise that the detector was not
    fitted on these images, and that no figure will be reported on them.

    Raises:
      EvaluationError: the split is `test` or `train`; or as `AnomalyScores`.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        check_may_calibrate(
            self.split,
            "scores",
            "those of train are too low, and what is fitted on test would flatter the figures; "
            "hold normal images back",
        )


def scores_type(split: str) -> type[AnomalyScores]:
    """The class that scores of a split have."""
    return CalibrationScores if split in CALIBRATION_SPLITS else AnomalyScores


def check_calibration_scores(scores: AnomalyScores, what: str) -> None:
    """Refuse what nothing may be fitted on.

    Args:
      scores: what was given.
      what: what would be fitted, such as `an alarm`.

    Raises:
      EvaluationError: the scores are no `CalibrationScores`, of no image, or some are of images
        that are known to be anomalous.
    """
    if not isinstance(scores, CalibrationScores):
        raise EvaluationError(
            f"{what} is fitted on CalibrationScores (of the validation part, or made as such of "
            f"calibration data), not on {type(scores).__name__} of {scores.split!r}: figures "
            "reported on the same images would be flattered"
        )
    if len(scores) == 0:
        raise EvaluationError(f"no images in {scores.split!r} to fit {what} on")
    if scores.anomalous is not None and scores.anomalous.any():
        raise EvaluationError(
            f"{int(scores.anomalous.sum())} of {len(scores)} images of {scores.split!r} are "
            f"anomalous, and {what} is fitted on normal ones: take scores.normal()"
        )
