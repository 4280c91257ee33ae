"""Where the training of one member stands: one run, or one of a population."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cnn_jax.recipe import TrainRecipe
from cnn_jax.training.stopping import Verdict, judge

Row = dict[str, float]


@dataclass(eq=False)
class Progress:
    """The figures of one member: plain values that a checkpoint keeps.

    Attributes:
      history: a row for each finished epoch.
      sums: name -> (sum, weight) of the steps of the unfinished epoch, float64.
      failure: what was not finite, and where; None while all is well.
    """

    history: list[Row] = field(default_factory=list)
    sums: dict[str, tuple[float, float]] = field(default_factory=dict)
    failure: str | None = None

    def add(self, metrics: Mapping[str, tuple[float, float]]) -> None:
        """Add the metrics of a chunk."""
        for name, (total, weight) in metrics.items():
            before = self.sums.get(name, (0.0, 0.0))
            self.sums[name] = (before[0] + total, before[1] + weight)

    def mean(self, name: str) -> float:
        """Mean over the epoch so far."""
        total, weight = self.sums.get(name, (0.0, 0.0))
        return total / weight if weight else math.nan

    def end_epoch(self, validation: Mapping[str, float]) -> None:
        """Turn the sums into a row, beside validation loss and accuracy."""
        row = {
            "epoch": len(self.history) + 1,
            "train_loss": self.mean("loss"),
            "train_accuracy": self.mean("accuracy"),
            "validation_loss": validation["loss"],
            "validation_accuracy": validation["accuracy"],
            "gradient_norm": self.mean("gradient_norm"),
            "learning_rate": self.mean("learning_rate"),
        }
        self.history, self.sums = [*self.history, row], {}

    def fail(self, reason: str) -> None:
        """End training here; the unfinished epoch is dropped."""
        self.failure, self.sums = reason, {}

    def verdict(self, recipe: TrainRecipe) -> Verdict:
        """What the history says; a failure ends training."""
        verdict = judge(self.history, recipe)
        if self.failure is None:
            return verdict
        return Verdict(verdict.best_epoch, verdict.learning_rate_scale, self.failure)

    def to_dict(self) -> dict[str, Any]:
        """For the checkpoint; floats survive JSON exactly."""
        sums = {name: list(values) for name, values in self.sums.items()}
        failure = {} if self.failure is None else {"failure": self.failure}
        return {"history": self.history, "sums": sums, **failure}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Progress:
        """The inverse of `to_dict`."""
        sums = {k: (float(a), float(b)) for k, (a, b) in values["sums"].items()}
        return cls([dict(row) for row in values["history"]], sums, values.get("failure"))
