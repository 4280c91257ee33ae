"""Where something was fitted, and that it is not judged by the same examples."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation.predictions import CalibrationPredictions, check_calibration


class Judged(Protocol):
    """What something fitted is judged by: predictions, or scores."""

    @property
    def split(self) -> str:
        """Name of the split."""

    @property
    def ids(self) -> np.ndarray:
        """str `[N]`."""

    @property
    def groups(self) -> np.ndarray | None:
        """str `[N]` or None."""


@dataclass(frozen=True)
class FittedOn:
    """The examples that something was fitted on.

    Attributes:
      split: name of their split.
      n: how many.
      groups: how many independent groups; as many as examples where none were given.
    """

    split: str
    n: int
    groups: int
    _ids: frozenset[str] = field(default=frozenset(), repr=False, compare=False)
    _groups: frozenset[str] = field(default=frozenset(), repr=False, compare=False)

    @classmethod
    def of(cls, predictions: CalibrationPredictions, what: str) -> FittedOn:
        """Of predictions that may be fitted on.

        Args:
          predictions: what is fitted on.
          what: what is fitted, for the error, such as `a threshold`.

        Raises:
          EvaluationError: the predictions are not of that type, or there are none.
        """
        check_calibration(predictions, what)
        names = frozenset[str]()
        if predictions.groups is not None:
            names = frozenset(str(group) for group in predictions.groups)
        groups = len(names) if names else len(predictions)
        return cls(predictions.split, len(predictions), groups, _ids(predictions), names)

    def check_apart(self, predictions: Judged, what: str) -> None:
        """Refuse to judge what was fitted by the examples, or the groups, it was fitted on.

        An example is known by its id, whatever the split is called or became of its logits.

        Raises:
          EvaluationError: they share examples or groups.
        """
        if shared := len(self._ids & _ids(predictions)):
            raise EvaluationError(
                f"{what} was fitted on {self.split!r}, {shared} of whose {self.n} examples are, by "
                f"their ids, among those of {predictions.split!r} that it would be judged by: take "
                "others (or other ids, if these are other examples)"
            )
        if predictions.groups is None:
            return
        if common := self._groups & {str(group) for group in predictions.groups}:
            raise EvaluationError(
                f"{what} was fitted on {self.split!r}, which shares {len(common)} groups "
                f"(patients, scenes), such as {min(common)!r}, with {predictions.split!r} that it "
                "would be judged by: split by group"
            )


def _ids(predictions: Judged) -> frozenset[str]:
    return frozenset(str(name) for name in predictions.ids)
