"""`PairScores`: how alike two images are, for every pair of a list, written once."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation.examples import UNREADABLE, check_may_calibrate, class_to_load
from cnn_jax.evaluation.predictions import CALIBRATION_SPLITS
from cnn_jax.evaluation.templates import unit_embeddings
from cnn_jax.whole_files import whole_file

# 64 MB of float64 at a time for the embeddings of both ends of some pairs.
_NUMBERS_AT_ONCE = 8_000_000


@dataclass(frozen=True, eq=False)
class PairScores:
    """Scores of a list of pairs, in the order of the list, which is part of the protocol.

    Attributes:
      split: name of the split.
      images: str `[P, 2]`, the ids of the two images (or templates) of each pair.
      scores: float64 `[P]`, higher for what is more alike.
      same: bool `[P]`: whether the two are of one subject (genuine pairs) or not (impostor pairs).
      subjects: str `[P, 2]`, who is on the two images; None where it is not known.
      fold: int64 `[P]`, the fold of each pair in a protocol with folds; None without.
      run_digest: digest of the run (model, recipe, step) that made the embeddings.

    Raises:
      EvaluationError: shapes or types do not fit, a score is not finite, an image is paired with
        itself, or `same` contradicts the subjects.
    """

    split: str
    images: np.ndarray
    scores: np.ndarray
    same: np.ndarray
    subjects: np.ndarray | None = None
    fold: np.ndarray | None = None
    run_digest: str = ""

    def __post_init__(self) -> None:
        p = len(self.scores)
        self._check("scores", self.scores, "float64", p)
        self._check("same", self.same, "bool", p)
        self._check("images", self.images, "str", p, 2)
        if self.subjects is not None:
            self._check("subjects", self.subjects, "str", p, 2)
        if self.fold is not None:
            self._check("fold", self.fold, "int64", p)
        if not np.isfinite(self.scores).all():
            bad = int((~np.isfinite(self.scores)).sum())
            raise EvaluationError(
                f"{bad} of {p} pairs of {self.split!r} have a score that is not finite: look at "
                "the embeddings"
            )
        with_itself = self.images[:, 0] == self.images[:, 1]
        if with_itself.any():
            at = int(with_itself.argmax())
            raise EvaluationError(
                f"pair {at} of {self.split!r} is image {str(self.images[at, 0])!r} with itself"
            )
        if self.subjects is None:
            return
        wrong = self.same != (self.subjects[:, 0] == self.subjects[:, 1])
        if wrong.any():
            at = int(wrong.argmax())
            a, b = self.subjects[at].tolist()
            raise EvaluationError(
                f"pair {at} of {self.split!r} is of {a!r} and {b!r}, and `same` says "
                f"{bool(self.same[at])}"
            )

    def _check(self, name: str, array: np.ndarray, kind: str, *shape: int) -> None:
        found = "str" if array.dtype.kind == "U" else array.dtype.name
        if array.shape != shape or found != kind:
            raise EvaluationError(
                f"{name} of the pairs of {self.split!r} is {found} {list(array.shape)}, not {kind} "
                f"{list(shape)}"
            )

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def ids(self) -> np.ndarray:
        """str `[2 P]`: the images of all pairs, one after the other."""
        return self.images.reshape(-1)

    @property
    def groups(self) -> np.ndarray | None:
        """str `[2 P]` or None: the subjects of all pairs; what a bootstrap resamples."""
        return None if self.subjects is None else self.subjects.reshape(-1)

    def take(self, rows: np.ndarray) -> Self:
        """The pairs at these positions, int64 or bool `[M]`."""
        return replace(
            self,
            images=self.images[rows],
            scores=self.scores[rows],
            same=self.same[rows],
            subjects=None if self.subjects is None else self.subjects[rows],
            fold=None if self.fold is None else self.fold[rows],
        )

    def check_both_kinds(self) -> None:
        """Raise EvaluationError unless there are genuine pairs and impostor pairs."""
        genuine = int(self.same.sum())
        if genuine in (0, len(self)):
            kind = "genuine" if genuine == 0 else "impostor"
            raise EvaluationError(
                f"no {kind} pair among the {len(self)} of {self.split!r}: verification is judged "
                "by pairs of one person and by pairs of two"
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an `.npz` without pickles; the file appears whole or not at all."""
        arrays = {
            "images": self.images,
            "scores": self.scores,
            "same": self.same,
            "split": np.asarray(self.split),
            "kind": np.asarray("pairs"),
            "run_digest": np.asarray(self.run_digest),
        }
        if self.subjects is not None:
            arrays["subjects"] = self.subjects
        if self.fold is not None:
            arrays["fold"] = self.fold
        with whole_file(path) as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote; of a validation or calibration split `CalibrationPairScores`.

        Called on `CalibrationPairScores`, this is the same promise as their constructor.

        Raises:
          EvaluationError: the file is missing or damaged, holds no pairs, or those of a split of
            which there are none.
        """
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as z:
                if (kind := str(z["kind"])) != "pairs":
                    raise EvaluationError(f"it holds targets of kind {kind!r}, not pairs")
                split = str(z["split"])
                return class_to_load(cls, pairs_type(split))(
                    split=split,
                    images=z["images"],
                    scores=z["scores"],
                    same=z["same"],
                    subjects=z.get("subjects"),
                    fold=z.get("fold"),
                    run_digest=str(z["run_digest"]),
                )
        except UNREADABLE as error:
            raise EvaluationError(f"cannot read pairs {str(path)!r}: {error}") from error


@dataclass(frozen=True, eq=False)
class CalibrationPairScores(PairScores):
    """Scores of pairs that a threshold may be fitted on.

    A type of its own for the reason that `CalibrationPredictions` are. Pairs of the splits
    `validation` and `calibration` are; of data under another name one makes them by this
    constructor, which is the promise that the network has not learned these people, and that no
    figure will be reported on these pairs.

    Raises:
      EvaluationError: the split is `test` or `train`; or as `PairScores`.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        check_may_calibrate(
            self.split,
            "pairs",
            "a network tells people apart that it has learned, and what is fitted on test would "
            "flatter the figures; hold people back",
        )


def pairs_type(split: str) -> type[PairScores]:
    """The class that scores of the pairs of a split have."""
    return CalibrationPairScores if split in CALIBRATION_SPLITS else PairScores


def check_calibration_pairs(pairs: PairScores, what: str) -> None:
    """Refuse what nothing may be fitted on.

    Args:
      pairs: what was given.
      what: what would be fitted, such as `a threshold`.

    Raises:
      EvaluationError: the pairs are no `CalibrationPairScores`, or there are none.
    """
    if not isinstance(pairs, CalibrationPairScores):
        raise EvaluationError(
            f"{what} is fitted on CalibrationPairScores (of the validation part, or made as such "
            f"of people held back), not on {type(pairs).__name__} of {pairs.split!r}: figures "
            "reported on the same pairs would be flattered"
        )
    if len(pairs) == 0:
        raise EvaluationError(f"no pairs in {pairs.split!r} to fit {what} on")


def pair_scores(
    embeddings: np.ndarray,
    pairs: np.ndarray | None = None,
    *,
    split: str,
    ids: np.ndarray,
    subjects: np.ndarray | None = None,
    same: np.ndarray | None = None,
    fold: np.ndarray | None = None,
    run_digest: str = "",
) -> PairScores:
    """The cosine of each pair of embeddings.

    Cosines are rounded to 12 places, so that equal images make equal scores, whatever the order
    of the sum. Their squared distance is 2 - 2 cos.

    Args:
      embeddings: float `[N, D]`, normalised here. The mirrored image, where it takes part, is
        added before: see `add_flipped`.
      pairs: int `[P, 2]`, positions in 0..N - 1, in the order of the protocol; None for every two
        images.
      split: name of the split; of `validation` and `calibration` come `CalibrationPairScores`.
      ids: str `[N]`, distinct.
      subjects: str `[N]`, who is on each image.
      same: bool `[P]`, for pairs whose subjects are not known.
      fold: int `[P]`.
      run_digest: of the run that made the embeddings.

    Raises:
      EvaluationError: shapes that do not fit, an id twice, an embedding of no length or that is
        not finite, a position out of range, or neither subjects nor `same`.
    """
    unit = unit_embeddings(embeddings)
    ids = np.asarray(ids, np.str_)
    if ids.shape != (len(unit),) or len(np.unique(ids)) != len(ids):
        raise EvaluationError(f"{len(unit)} embeddings of {split!r} need as many distinct ids")
    if pairs is None:
        pairs = np.column_stack(np.triu_indices(len(unit), 1))
    ends = np.asarray(pairs)
    whole = ends.ndim == 2 and ends.shape[1] == 2 and np.issubdtype(ends.dtype, np.integer)
    if not whole or ((ends < 0) | (ends >= len(unit))).any():
        raise EvaluationError(
            f"pairs of {split!r} are {ends.dtype} {list(ends.shape)}, not integers [P, 2] in "
            f"0..{len(unit) - 1}"
        )
    of_pairs = None
    if subjects is not None:
        subjects = np.asarray(subjects, np.str_)
        if subjects.shape != (len(unit),):
            raise EvaluationError(f"{len(unit)} embeddings of {split!r} need as many subjects")
        of_pairs = subjects[ends]
        same = of_pairs[:, 0] == of_pairs[:, 1] if same is None else same
    if same is None:
        raise EvaluationError(f"which pairs of {split!r} are of one subject? Give `subjects`")
    scores = np.empty(len(ends))
    chunk = max(1, _NUMBERS_AT_ONCE // (2 * unit.shape[1]))
    for start in range(0, len(ends), chunk):
        a, b = (unit[column] for column in ends[start : start + chunk].T)
        scores[start : start + chunk] = np.einsum("pd,pd->p", a, b)
    return pairs_type(split)(
        split=split,
        images=ids[ends],
        scores=np.clip(np.round(scores, 12), -1, 1),
        same=np.asarray(same, bool),
        subjects=of_pairs,
        fold=None if fold is None else np.asarray(fold, np.int64),
        run_digest=run_digest,
    )
