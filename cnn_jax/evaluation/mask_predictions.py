"""`MaskPredictions`: what a model said about every pixel of every example of a split."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation.examples import UNREADABLE, groups_of_folds, order_like
from cnn_jax.whole_files import whole_file

# How far probabilities may leave 0..1, and their sum exceed 1: what float16 rounds away.
_ROUNDING = 1e-3


@dataclass(frozen=True, eq=False)
class MaskPredictions:
    """Reference masks and predicted probabilities of one split, each example exactly once.

    Attributes:
      split: name of the split.
      ids: str `[N]`; two runs are aligned by them.
      masks: uint8 `[N, *spatial]` with 2 or 3 spatial axes, the reference: 0 is background, r
        is `regions[r]`.
      probabilities: float16 or float32 `[N, *spatial, R - 1]`, of the regions 1..R - 1 at each
        pixel; background has what they leave of 1.
      regions: R >= 2 names, the background first.
      groups: str `[N]` or None; what a bootstrap resamples.
      spacing: mm from pixel to pixel along each spatial axis; None where it is unknown, and
        distances are in pixels.
      run_digest: digest of the run (model, recipe, step) that made them.

    Raises:
      EvaluationError: shapes, types or values do not fit, an id repeats, or a probability is not
        finite.
    """

    split: str
    ids: np.ndarray
    masks: np.ndarray
    probabilities: np.ndarray
    regions: tuple[str, ...]
    groups: np.ndarray | None = None
    spacing: tuple[float, ...] | None = None
    run_digest: str = ""

    def __post_init__(self) -> None:
        n, r = len(self.ids), len(self.regions)
        if r < 2:
            raise EvaluationError(
                f"masks of {self.split!r} need a background and a region, not {r} names"
            )
        self._check_masks()
        expected = (*self.masks.shape, r - 1)
        if self.probabilities.shape != expected:
            raise EvaluationError(
                f"probabilities of {self.split!r} are {list(self.probabilities.shape)}, not "
                f"{list(expected)}: the shape of the masks and {r - 1} regions without background"
            )
        if self.groups is not None and len(self.groups) != n:
            raise EvaluationError(f"groups of {self.split!r} are not {n} long")
        if len(np.unique(self.ids)) != n:
            raise EvaluationError(f"an example of {self.split!r} was predicted twice")
        check_spacing(self.spacing, self.masks.ndim - 1)
        if n:
            self._check_probabilities()

    def _check_masks(self) -> None:
        shape, r = self.masks.shape, len(self.regions)
        if len(shape) not in (3, 4) or len(self.ids) != shape[0] or 0 in shape[1:]:
            raise EvaluationError(
                f"masks of {self.split!r} are {list(shape)}, not "
                f"[{len(self.ids)} examples, height, width] or [.., depth, height, width]"
            )
        if self.masks.dtype != np.uint8:
            raise EvaluationError(f"masks of {self.split!r} are {self.masks.dtype}, not uint8")
        largest = self.masks.max(axis=tuple(range(1, len(shape))))
        if (largest >= r).any():
            first = int((largest >= r).argmax())
            raise EvaluationError(
                f"the mask of {str(self.ids[first])!r} in {self.split!r} holds {largest[first]}, "
                f"and the {r} regions are 0..{r - 1}: map its values to regions, or name more"
            )

    def _check_probabilities(self) -> None:
        p = self.probabilities
        if p.dtype not in (np.float16, np.float32):
            raise EvaluationError(
                f"probabilities of {self.split!r} are {p.dtype}, not float16 or float32"
            )
        if not np.isfinite(p).all():
            bad = int((~np.isfinite(p).all(axis=tuple(range(1, p.ndim)))).sum())
            raise EvaluationError(
                f"{bad} of {len(self)} predictions for {self.split!r} are not finite: the model "
                "diverged; lower the learning rate"
            )
        low, high = float(p.min()), float(p.max())
        if low < -_ROUNDING or high > 1 + _ROUNDING:
            raise EvaluationError(
                f"probabilities of {self.split!r} reach from {low:.4g} to {high:.4g}, not within "
                "0..1: give probabilities, not logits"
            )
        largest = float(p.sum(axis=-1, dtype=np.float32).max())
        if largest > 1 + _ROUNDING:
            raise EvaluationError(
                f"probabilities of {self.split!r} sum to {largest:.4g} at a pixel, more than 1: "
                "the regions exclude each other, so give their softmax, not sigmoids"
            )

    def __len__(self) -> int:
        return len(self.ids)

    def predicted(self) -> np.ndarray:
        """uint8 `[N, *spatial]`: the most probable region at each pixel.

        Of equally probable ones the lower number: with one region it is predicted where p > 0.5.
        """
        if self.probabilities.shape[-1] == 1:
            return (self.probabilities[..., 0] > 0.5).astype(np.uint8)
        found = np.empty(self.masks.shape, np.uint8)
        for row, p in enumerate(self.probabilities):  # float64 of one example at a time
            background = 1 - p.sum(axis=-1, dtype=np.float64)
            found[row] = np.where(p.max(axis=-1) > background, p.argmax(axis=-1) + 1, 0)
        return found

    def aligned(self, other: MaskPredictions) -> Self:
        """These predictions in the order of `other.ids`.

        Raises:
          EvaluationError: the two do not hold the same examples, or disagree on the regions, the
            spacing, the size of the images or a mask.
        """
        for what, mine, others in (
            ("regions", ", ".join(self.regions), ", ".join(other.regions)),
            ("spacing", self.spacing, other.spacing),
            ("size of image", list(self.masks.shape[1:]), list(other.masks.shape[1:])),
        ):
            if mine != others:
                raise EvaluationError(
                    f"the two predictions are not over the same {what}: {mine}, and {others}"
                )
        index = order_like(self.ids, other.ids)
        if not np.array_equal(self.masks[index], other.masks):
            raise EvaluationError("the two predictions disagree on the masks")
        return self.take(index)

    def take(self, rows: np.ndarray) -> Self:
        """The predictions at these positions, int64 or bool `[M]`."""
        return replace(
            self,
            ids=self.ids[rows],
            masks=self.masks[rows],
            probabilities=self.probabilities[rows],
            groups=None if self.groups is None else self.groups[rows],
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an `.npz` without pickles; the file appears whole or not at all."""
        arrays = {
            "ids": np.asarray(self.ids, dtype=np.str_),
            "masks": self.masks,
            "probabilities": self.probabilities,
            "regions": np.asarray(self.regions, dtype=np.str_),
            "split": np.asarray(self.split),
            "kind": np.asarray("masks"),
            "run_digest": np.asarray(self.run_digest),
        }
        if self.groups is not None:
            arrays["groups"] = np.asarray(self.groups, dtype=np.str_)
        if self.spacing is not None:
            arrays["spacing"] = np.asarray(self.spacing, dtype=np.float64)
        with whole_file(path) as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote.

        Raises:
          EvaluationError: the file is missing or damaged, or holds no masks.
        """
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as z:
                if (kind := str(z["kind"])) != "masks":
                    raise EvaluationError(f"it holds targets of kind {kind!r}, not masks")
                return cls(
                    split=str(z["split"]),
                    ids=z["ids"],
                    masks=z["masks"],
                    probabilities=z["probabilities"],
                    regions=tuple(z["regions"].tolist()),
                    groups=z.get("groups"),
                    spacing=tuple(z["spacing"].tolist()) if "spacing" in z else None,
                    run_digest=str(z["run_digest"]),
                )
        except UNREADABLE as error:
            raise EvaluationError(f"cannot read predictions {str(path)!r}: {error}") from error


def check_spacing(spacing: Sequence[float] | None, axes: int) -> None:
    """Raise EvaluationError unless a spacing is None, or positive along each spatial axis."""
    if spacing is None:
        return
    if len(spacing) != axes or not all(0 < s < float("inf") for s in spacing):
        raise EvaluationError(
            f"spacing {list(spacing)} must be {axes} positive numbers, one for each spatial axis"
        )


def out_of_fold_masks(folds: Sequence[MaskPredictions]) -> MaskPredictions:
    """The predictions of all folds of a cross-validation as those of one set.

    Each example was predicted once, by the model that had not seen it; see `out_of_fold`.

    Raises:
      EvaluationError: no folds, other regions, spacing or sizes of image, an example in two
        folds, or a group cut by folds.
    """
    if not folds:
        raise EvaluationError("no folds to put together")
    first = folds[0]
    for fold in folds:
        if (fold.regions, fold.spacing) != (first.regions, first.spacing):
            raise EvaluationError("the folds are not over the same regions and spacing")
        if fold.masks.shape[1:] != first.masks.shape[1:]:
            raise EvaluationError(
                f"images of the folds are {list(first.masks.shape[1:])} and "
                f"{list(fold.masks.shape[1:])}: bring them to one size"
            )
    return replace(
        first,
        split="out-of-fold",
        ids=np.concatenate([fold.ids for fold in folds]),
        masks=np.concatenate([fold.masks for fold in folds]),
        probabilities=np.concatenate([fold.probabilities for fold in folds]),
        groups=groups_of_folds([fold.groups for fold in folds]),
        run_digest="",
    )
