"""`EmbeddingPredictions`: where a network puts every image of a split, written once."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation.examples import UNREADABLE, check_may_calibrate, class_to_load, order_like
from cnn_jax.evaluation.predictions import CALIBRATION_SPLITS
from cnn_jax.whole_files import whole_file


@dataclass(frozen=True, eq=False)
class EmbeddingPredictions:
    """Embeddings of the images of one split and who is on them, each image exactly once.

    Attributes:
      split: name of the split.
      ids: str `[N]`; two runs are aligned by them.
      subjects: str `[N]`: the person (or product) on each image.
      embeddings: float32 `[N, D]`, as the network gave them, not normalised. With views they are
        the sum over an image's views, taken before normalising as in `templates.add_flipped`.
      run_digest: digest of the run (model, recipe, step) that made them.

    Raises:
      EvaluationError: shapes do not fit, an id repeats, or an embedding is not finite.
    """

    split: str
    ids: np.ndarray
    subjects: np.ndarray
    embeddings: np.ndarray
    run_digest: str = ""

    def __post_init__(self) -> None:
        n, shape = len(self.ids), self.embeddings.shape
        if len(shape) != 2 or shape[0] != n or self.embeddings.dtype != np.float32:
            raise EvaluationError(
                f"embeddings of {self.split!r} are {self.embeddings.dtype} {list(shape)}, not "
                f"float32 [{n} examples, dimensions]"
            )
        if self.subjects.shape != (n,) or self.subjects.dtype.kind != "U":
            raise EvaluationError(f"{n} embeddings of {self.split!r} need as many subjects, str")
        if len(np.unique(self.ids)) != n:
            raise EvaluationError(f"an example of {self.split!r} was predicted twice")
        if not np.isfinite(self.embeddings).all():
            bad = int((~np.isfinite(self.embeddings).all(axis=1)).sum())
            raise EvaluationError(
                f"{bad} of {n} embeddings of {self.split!r} are not finite: the model diverged; "
                "lower the learning rate"
            )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def groups(self) -> np.ndarray:
        """str `[N]`: the subjects, which are what a bootstrap resamples."""
        return self.subjects

    def aligned(self, other: EmbeddingPredictions) -> Self:
        """These embeddings in the order of `other.ids`; the dimensions may differ.

        Raises:
          EvaluationError: the two do not hold the same examples, or disagree on who is on one.
        """
        index = order_like(self.ids, other.ids)
        if not np.array_equal(self.subjects[index], other.subjects):
            raise EvaluationError("the two predictions disagree on the subjects")
        return self.take(index)

    def take(self, rows: np.ndarray) -> Self:
        """The embeddings at these positions, int64 or bool `[M]`."""
        return replace(
            self,
            ids=self.ids[rows],
            subjects=self.subjects[rows],
            embeddings=self.embeddings[rows],
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an `.npz` without pickles; the file appears whole or not at all."""
        arrays = {
            "ids": np.asarray(self.ids, dtype=np.str_),
            "subjects": self.subjects,
            "embeddings": self.embeddings,
            "split": np.asarray(self.split),
            "kind": np.asarray("embeddings"),
            "run_digest": np.asarray(self.run_digest),
        }
        with whole_file(path) as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote; of a validation or calibration split `CalibrationEmbeddings`.

        Called on `CalibrationEmbeddings`, this is the same promise as their constructor.

        Raises:
          EvaluationError: the file is missing or damaged, holds no embeddings, or those of a
            split of which there are none.
        """
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as z:
                if (kind := str(z["kind"])) != "embeddings":
                    raise EvaluationError(f"it holds targets of kind {kind!r}, not embeddings")
                split = str(z["split"])
                return class_to_load(cls, embeddings_type(split))(
                    split=split,
                    ids=z["ids"],
                    subjects=z["subjects"],
                    embeddings=z["embeddings"],
                    run_digest=str(z["run_digest"]),
                )
        except UNREADABLE as error:
            raise EvaluationError(f"cannot read predictions {str(path)!r}: {error}") from error


@dataclass(frozen=True, eq=False)
class CalibrationEmbeddings(EmbeddingPredictions):
    """Embeddings that a threshold, or a choice of state, may be fitted on.

    What `CalibrationPredictions` are to predictions of classes: of the splits `validation` and
    `calibration`, or the promise that no figure will be reported on these people.

    Raises:
      EvaluationError: the split is `test` or `train`; or as `EmbeddingPredictions`.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        why = "what is fitted on them would flatter the figures; take the validation part"
        check_may_calibrate(self.split, "embeddings", why)


def embeddings_type(split: str) -> type[EmbeddingPredictions]:
    """The class that embeddings of a split have."""
    return CalibrationEmbeddings if split in CALIBRATION_SPLITS else EmbeddingPredictions
