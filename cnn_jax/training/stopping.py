"""When training ends: pure functions of the history, so that a resume decides alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cnn_jax.recipe import TrainRecipe

# One row of the history for each finished epoch; see `member.Progress`.
Row = Mapping[str, float]

_DROP = 0.1  # of the learning rate on a plateau
_DROPS = 2  # plateaus that lower the learning rate; the next one ends training
_FALL = 0.01  # relative fall of the training loss that counts as progress
_PATIENCE = 5  # epochs of a plateau where the recipe does not say


@dataclass(frozen=True)
class Verdict:
    """What the history says.

    Attributes:
      best_epoch: epoch (from 1) with the best validation score; the earliest on a tie.
      learning_rate_scale: factor of the learning rate from now on.
      reason: why training ends now, or None to go on.
    """

    best_epoch: int
    learning_rate_scale: float
    reason: str | None


def scores_decide(recipe: TrainRecipe) -> bool:
    """Whether the figures of an epoch tell how the next one is trained, or that there is none."""
    return recipe.until == "converged" or recipe.patience > 0


def judge(history: Sequence[Row], recipe: TrainRecipe) -> Verdict:
    """Look at the finished epochs.

    The best epoch has the highest validation accuracy and, among equals, the lowest
    validation loss.
    """
    if not history:
        return Verdict(0, 1.0, None)
    scores = [(row["validation_accuracy"], -row["validation_loss"]) for row in history]
    best = max(range(len(scores)), key=lambda i: (scores[i], -i)) + 1
    if recipe.until == "converged":
        scale, reason = _converged(history, recipe)
    else:
        scale, reason = 1.0, None
        since = len(history) - best
        if recipe.patience and since >= recipe.patience:
            reason = f"validation has not improved for {since} epochs (best was epoch {best})"
    if reason is None and len(history) >= recipe.epochs:
        reason = (
            "the one epoch is done"
            if recipe.epochs == 1
            else f"all {recipe.epochs} epochs are done"
        )
        if recipe.until == "converged":
            reason += ", before training converged"
    return Verdict(best, scale, reason)


def _converged(history: Sequence[Row], recipe: TrainRecipe) -> tuple[float, str | None]:
    patience = recipe.patience or _PATIENCE
    drops, lowest, since = 0, float("inf"), 0
    for row in history:
        if row["train_loss"] < lowest * (1 - _FALL):
            lowest, since = row["train_loss"], 0
            continue
        since += 1
        if since >= patience and drops < _DROPS:
            drops, since = drops + 1, 0
        elif since >= patience:
            return _DROP**drops, (
                f"converged: after {drops} drops of the learning rate the training loss "
                f"did not fall by {_FALL:.0%} within {patience} epochs"
            )
    return _DROP**drops, None
