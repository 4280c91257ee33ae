"""What predictions, masks and scores have in common: examples with ids and groups, in a file."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from cnn_jax.errors import EvaluationError

C = TypeVar("C")

# What NumPy and zipfile raise for a missing, empty, truncated, altered or foreign file
# (TypeError: a single array, .npy, is not an archive).
UNREADABLE = (
    OSError,
    EOFError,
    KeyError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)


def check_may_calibrate(split: str, what: str, why: str) -> None:
    """Refuse the parts that nothing may be fitted on.

    Args:
      split: name of the split.
      what: what is of it, such as `predictions`.
      why: it may not serve, and what to do, for the error.

    Raises:
      EvaluationError: the split is `test` or `train`.
    """
    if split in ("train", "test"):
        raise EvaluationError(f"{what} of {split!r} cannot serve for calibration: {why}")


def class_to_load(cls: type[C], found: type[Any]) -> type[C]:
    """The class that `cls.load` makes: that of the file's split, where it is a kind of `cls`."""
    return found if issubclass(found, cls) else cls


def order_like(ids: np.ndarray, other: np.ndarray) -> np.ndarray:
    """int64 `[N]`: where in `ids` each of the ids of `other` is.

    Raises:
      EvaluationError: the two do not hold the same examples.
    """
    order, order_of_other = np.argsort(ids), np.argsort(other)
    if not np.array_equal(ids[order], other[order_of_other]):
        raise EvaluationError("the two predictions do not hold the same examples")
    index = np.empty_like(order)
    index[order_of_other] = order
    return index


def groups_of_folds(groups: Sequence[np.ndarray | None]) -> np.ndarray | None:
    """The groups of all folds of a cross-validation, one after the other; None without any.

    Raises:
      EvaluationError: some folds have groups and others have not, or a group is in two folds.
    """
    given = [some for some in groups if some is not None]
    if not given:
        return None
    if len(given) < len(groups):
        raise EvaluationError("some folds have groups and others have not")
    in_fold: dict[str, int] = {}
    for number, of_fold in enumerate(given):
        for group in dict.fromkeys(of_fold.tolist()):
            if in_fold.setdefault(group, number) != number:
                raise EvaluationError(
                    f"group {group!r} is in folds {in_fold[group] + 1} and {number + 1}: "
                    "a model was tested on what it had seen"
                )
    return np.concatenate(given)
