"""`Predictions`: what a model said about every example of a split, written once."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Literal, Self, TypeVar, get_args

import numpy as np

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation.examples import (
    UNREADABLE,
    check_may_calibrate,
    class_to_load,
    order_like,
)
from cnn_jax.whole_files import whole_file

TargetKind = Literal["class", "multilabel", "soft"]


def log_probabilities(logits: np.ndarray, kind: TargetKind) -> np.ndarray:
    """float64 `[N, K]`: log softmax of the logits; the log sigmoid for multi-label."""
    z = logits.astype(np.float64)
    if kind == "multilabel":
        return -np.logaddexp(0, -z)
    z -= z.max(axis=1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=1, keepdims=True))


@dataclass(frozen=True, eq=False)
class Predictions:
    """Logits and targets of every example of one split, each exactly once.

    Attributes:
      split: name of the split.
      ids: str `[N]`; two runs are aligned by them.
      targets: int32 `[N]`, or float32 `[N, K]`: 0 or 1 per label for multi-label, a
        distribution for soft targets.
      logits: float32 `[N, K]`, as the model gave them, before any calibration.
      classes: K class names.
      kind: `class`, `multilabel` or `soft`.
      groups: str `[N]` or None; what a bootstrap resamples.
      run_digest: digest of the run (model, recipe, step) that made them.

    Raises:
      EvaluationError: shapes or targets do not fit, an id repeats, or a logit is not finite.
    """

    split: str
    ids: np.ndarray
    targets: np.ndarray
    logits: np.ndarray
    classes: tuple[str, ...]
    kind: TargetKind = "class"
    groups: np.ndarray | None = None
    run_digest: str = ""

    def __post_init__(self) -> None:
        n = len(self.ids)
        if self.logits.ndim != 2 or self.logits.shape != (n, len(self.classes)):
            raise EvaluationError(
                f"logits of {self.split!r} are {list(self.logits.shape)}, "
                f"not [{n} examples, {len(self.classes)} classes]"
            )
        if len(self.targets) != n or (self.groups is not None and len(self.groups) != n):
            raise EvaluationError(f"targets or groups of {self.split!r} are not {n} long")
        if len(np.unique(self.ids)) != n:
            raise EvaluationError(f"an example of {self.split!r} was predicted twice")
        self._check_targets()
        if not np.isfinite(self.logits).all():
            bad = int((~np.isfinite(self.logits).all(axis=1)).sum())
            raise EvaluationError(
                f"{bad} of {n} predictions for {self.split!r} are not finite: the model diverged; "
                "lower the learning rate"
            )

    def _check_targets(self) -> None:
        k = len(self.classes)
        if self.kind not in get_args(TargetKind):
            raise EvaluationError(f"kind must be class, multilabel or soft, not {self.kind!r}")
        if self.kind != "multilabel" and k < 2:
            raise EvaluationError(
                f"{self.kind!r} targets of {self.split!r} need two classes, not {k}"
            )
        if self.kind == "class":
            integers = self.targets.ndim == 1 and np.issubdtype(self.targets.dtype, np.integer)
            if not integers or ((self.targets < 0) | (self.targets >= k)).any():
                raise EvaluationError(f"targets of {self.split!r} must be integers in 0..{k - 1}")
            return
        if self.targets.shape != self.logits.shape:
            raise EvaluationError(
                f"{self.kind} targets of {self.split!r} are {list(self.targets.shape)}, "
                f"not {list(self.logits.shape)}"
            )
        if self.kind == "multilabel" and not np.isin(self.targets, (0, 1)).all():
            raise EvaluationError(f"multi-label targets of {self.split!r} must be 0 or 1")
        if self.kind == "soft":
            sums = self.targets.sum(axis=1, dtype=np.float64)
            if (self.targets < 0).any() or not np.allclose(sums, 1, atol=1e-3):
                raise EvaluationError(f"soft targets of {self.split!r} must be >= 0 and sum to 1")

    def __len__(self) -> int:
        return len(self.ids)

    def labels(self) -> np.ndarray:
        """int64 `[N]`: the class of each example; of soft targets the most likely one."""
        return (
            self.targets.astype(np.int64) if self.kind == "class" else self.targets.argmax(axis=1)
        )

    def predicted(self) -> np.ndarray:
        """int64 `[N]`: the class with the largest logit (the first one on a tie)."""
        return self.logits.argmax(axis=1)

    def probabilities(self, temperature: float = 1.0) -> np.ndarray:
        """float64 `[N, K]`: softmax of logits / temperature; the sigmoid for multi-label."""
        return np.exp(self.log_probabilities(temperature))

    def log_probabilities(self, temperature: float = 1.0) -> np.ndarray:
        """float64 `[N, K]`: logarithms of `probabilities`, exact where those underflow.

        Raises:
          EvaluationError: the temperature is not positive.
        """
        return log_probabilities(self._scaled_logits(temperature), self.kind)

    def log_odds(self, temperature: float = 1.0) -> np.ndarray:
        """float64 `[N, K]`: log p / (1 - p) of each class against the rest.

        Ranks examples as the probabilities do, but keeps those apart that round to 1.

        Raises:
          EvaluationError: the temperature is not positive.
        """
        self._check_temperature(temperature)
        z = self.logits.astype(np.float64)
        if self.kind == "multilabel":
            return z / temperature
        # Differences come before the division, which would round equal ones apart.
        rows, first = np.arange(len(z)), z.argmax(axis=1)
        largest = z[rows, first]
        e = np.exp((z - largest[:, np.newaxis]) / temperature)
        rest = e.sum(axis=1, keepdims=True) - e
        others = z.copy()
        others[rows, first] = -np.inf
        # Taking the largest term from the sum would cancel, so its rest is summed anew.
        second = others.max(axis=1)
        e_others = np.exp((others - second[:, np.newaxis]) / temperature)
        rest[rows, first] = e_others.sum(axis=1)
        offset = np.repeat(largest[:, np.newaxis], z.shape[1], axis=1)
        offset[rows, first] = second
        # The rest is at least 1; rounded, it does not depend on the order of the sum, so that
        # examples whose logits differ in order alone are ties.
        return (z - offset) / temperature - np.log(np.round(rest, 12))

    def negative_log_likelihood(self, temperature: float = 1.0) -> np.ndarray:
        """float64 `[N]`, in nats: -log p of the target class.

        For soft targets the cross-entropy -Σ t log p; for multi-label targets the mean over
        labels of the binary cross-entropy.

        Raises:
          EvaluationError: the temperature is not positive.
        """
        if self.kind == "multilabel":
            z = self._scaled_logits(temperature)
            return np.logaddexp(0, np.where(self.targets > 0.5, -z, z)).mean(axis=1)
        log_p = self.log_probabilities(temperature)
        if self.kind == "soft":
            return -(self.targets * log_p).sum(axis=1)
        return -log_p[np.arange(len(self)), self.targets]

    def _scaled_logits(self, temperature: float) -> np.ndarray:
        self._check_temperature(temperature)
        return self.logits.astype(np.float64) / temperature

    def _check_temperature(self, temperature: float) -> None:
        if not temperature > 0:
            raise EvaluationError(f"temperature must be positive, not {temperature}")

    def aligned(self, other: Predictions) -> Self:
        """These predictions in the order of `other.ids`.

        Raises:
          EvaluationError: the two do not hold the same examples, or disagree on the classes or
            on a target.
        """
        if self.kind != other.kind or self.classes != other.classes:
            raise EvaluationError("the two predictions are not over the same classes")
        index = order_like(self.ids, other.ids)
        if not np.array_equal(self.targets[index], other.targets):
            raise EvaluationError("the two predictions disagree on the targets")
        return self.take(index)

    def take(self, rows: np.ndarray) -> Self:
        """The predictions at these positions, int64 or bool `[M]`."""
        return replace(
            self,
            ids=self.ids[rows],
            targets=self.targets[rows],
            logits=self.logits[rows],
            groups=None if self.groups is None else self.groups[rows],
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an `.npz` without pickles; the file appears whole or not at all."""
        arrays = {
            "ids": np.asarray(self.ids, dtype=np.str_),
            "targets": self.targets,
            "logits": np.asarray(self.logits, dtype=np.float32),
            "classes": np.asarray(self.classes, dtype=np.str_),
            "split": np.asarray(self.split),
            "kind": np.asarray(self.kind),
            "run_digest": np.asarray(self.run_digest),
        }
        if self.groups is not None:
            arrays["groups"] = np.asarray(self.groups, dtype=np.str_)
        with whole_file(path) as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote; of a validation or calibration split `CalibrationPredictions`.

        Called on `CalibrationPredictions`, this is the same promise as their constructor.

        Raises:
          EvaluationError: the file is missing or damaged, or of a split of which there are none.
        """
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as z:
                split = str(z["split"])
                return class_to_load(cls, predictions_type(split))(
                    split=split,
                    ids=z["ids"],
                    targets=z["targets"],
                    logits=z["logits"],
                    classes=tuple(z["classes"].tolist()),
                    kind=str(z["kind"]),  # type: ignore[arg-type]
                    groups=z.get("groups"),
                    run_digest=str(z["run_digest"]),
                )
        except UNREADABLE as error:
            raise EvaluationError(f"cannot read predictions {str(path)!r}: {error}") from error


# Of what functions return in the type they were given: what may be fitted on stays so.
P = TypeVar("P", bound=Predictions)

# Splits that are there to choose and fit on.
CALIBRATION_SPLITS = ("validation", "calibration")


@dataclass(frozen=True, eq=False)
class CalibrationPredictions(Predictions):
    """Predictions that something may be fitted on: a temperature, a threshold, a choice of state.

    A type of its own, so that nothing can be fitted on the part that figures are reported on:
    what fits takes this type, and predictions of the test part are never of it. Predictions of
    the splits `validation` and `calibration` are; of data under another name one makes them by
    this constructor, which is the promise that no figure will be reported on these examples.

    Raises:
      EvaluationError: the split is `test` or `train`; or as `Predictions`.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        why = "what is fitted on them would flatter the figures; take the validation part"
        check_may_calibrate(self.split, "predictions", why)


def predictions_type(split: str) -> type[Predictions]:
    """The class that predictions of a split have."""
    return CalibrationPredictions if split in CALIBRATION_SPLITS else Predictions


def check_calibration(predictions: Predictions, what: str) -> None:
    """Refuse what nothing may be fitted on.

    Args:
      predictions: what was given.
      what: what would be fitted, such as `a temperature`.

    Raises:
      EvaluationError: the predictions are no `CalibrationPredictions`, or of no example.
    """
    if not isinstance(predictions, CalibrationPredictions):
        raise EvaluationError(
            f"{what} is fitted on CalibrationPredictions (of the validation part, or made as such "
            f"of calibration data), not on {type(predictions).__name__} of {predictions.split!r}: "
            "figures reported on the same examples would be flattered"
        )
    if len(predictions) == 0:
        raise EvaluationError(f"no examples in {predictions.split!r} to fit {what} on")
