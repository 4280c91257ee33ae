"""The training loop. There is no second one.

Chunks of steps run on the device; progress, checkpoints and signals live between them.
Metrics are fetched one chunk late, so that no step waits for the host.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from cnn_jax.errors import NonFiniteLossError
from cnn_jax.recipe import TrainRecipe
from cnn_jax.training.checkpoints import Checkpoints
from cnn_jax.training.devices import Placement
from cnn_jax.training.feed import Feed
from cnn_jax.training.interrupt import Interrupt
from cnn_jax.training.progress import Reporter
from cnn_jax.training.state import Batch, State
from cnn_jax.training.step import Metrics
from cnn_jax.training.stopping import judge

Row = dict[str, float]


@dataclass
class Progress:
    """Where training stands, beside the state: plain values that a checkpoint keeps.

    Attributes:
      history: a row for each finished epoch.
      sums: name -> (sum, weight) of the steps of the unfinished epoch, float64.
    """

    history: list[Row] = field(default_factory=list)
    sums: dict[str, tuple[float, float]] = field(default_factory=dict)

    def add(self, metrics: Mapping[str, tuple[Any, Any]]) -> None:
        """Add the metrics of a chunk."""
        for name, (total, weight) in metrics.items():
            before = self.sums.get(name, (0.0, 0.0))
            self.sums[name] = (before[0] + float(total), before[1] + float(weight))

    def mean(self, name: str) -> float:
        """Mean over the epoch so far."""
        total, weight = self.sums.get(name, (0.0, 0.0))
        return total / weight if weight else math.nan

    def to_dict(self) -> dict[str, Any]:
        """For the checkpoint; floats survive JSON exactly."""
        return {"history": self.history, "sums": {k: list(v) for k, v in self.sums.items()}}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Progress:
        """The inverse of `to_dict`."""
        sums = {k: (float(a), float(b)) for k, (a, b) in values["sums"].items()}
        return cls([dict(row) for row in values["history"]], sums)


class Recorder(Protocol):
    """Keeps the figures of finished epochs; see `run_folder.RunFolder`."""

    def epoch(self, history: list[Row], seconds: float, images_per_second: float) -> None:
        """Called after each epoch with all rows so far."""
        ...


@dataclass(frozen=True)
class Outcome:
    """How training ended.

    Attributes:
      state: the last state.
      progress: all figures.
      best_epoch: epoch with the best validation score.
      reason: why it ended, as a sentence.
      interrupted: name of the signal that ended it early, or None.
    """

    state: State
    progress: Progress
    best_epoch: int
    reason: str
    interrupted: str | None = None


RunChunk = Callable[[State, Batch, Batch], tuple[State, Metrics]]
# Validation loss and accuracy of the present variables.
Validate = Callable[[Mapping[str, Any]], Mapping[str, float]]


def fit(
    state: State,
    progress: Progress,
    run_chunk: RunChunk,
    validate: Validate,
    feed: Feed,
    *,
    recipe: TrainRecipe,
    seed: int,
    checkpoints: Checkpoints,
    recorder: Recorder,
    reporter: Reporter,
    placement: Placement,
) -> Outcome:
    """Train from `state` until the recipe, convergence or a signal ends it.

    Args:
      state, progress: where to begin; after a resume, what the checkpoint held.
      run_chunk: K compiled steps.
      validate: called after each epoch.
      feed: the training part.
      recipe: length, patience, checkpoints.
      seed: of the data order.
      checkpoints, recorder, reporter: where to save, write and show.
      placement: for the scalars the loop changes.

    Raises:
      NonFiniteLossError: a loss or a gradient was not finite; checkpoints stay as they
        were.
      CheckpointError: a checkpoint could not be written.
    """
    entered = int(state.step) - len(progress.history) * feed.steps
    chunk_steps = feed.chunk_steps(recipe.chunk_steps, entered)
    verdict = judge(progress.history, recipe)
    last_saved = time.monotonic()
    with Interrupt() as interrupt:
        while verdict.reason is None:
            epoch = len(progress.history)
            state = _scale_learning_rate(state, verdict.learning_rate_scale, placement)
            started, first = time.monotonic(), int(state.step) - epoch * feed.steps
            pending: tuple[int, Metrics] | None = None
            done = first
            for items in feed.train_chunks(
                seed=seed, epoch=epoch, first_step=first, chunk_steps=chunk_steps
            ):
                with jax.transfer_guard("disallow"):
                    state, metrics = run_chunk(state, feed.resident, items)
                if pending is not None:
                    _account(progress, epoch, feed, pending, reporter, checkpoints)
                pending, done = (done, metrics), done + chunk_steps
                due = time.monotonic() - last_saved >= recipe.checkpoint_seconds
                stopped = interrupt.name
                if done == feed.steps or not (stopped or due):
                    continue  # the end of an epoch is saved below, once it is validated
                _account(progress, epoch, feed, pending, reporter, checkpoints)
                pending = None
                checkpoints.save(state, progress.to_dict(), best_epoch=None)
                last_saved = time.monotonic()
                if stopped:
                    return _interrupted(state, progress, checkpoints, stopped)
            if pending is not None:
                _account(progress, epoch, feed, pending, reporter, checkpoints)

            seconds = time.monotonic() - started
            row = _row(epoch, progress, validate(state.evaluated))
            progress = Progress([*progress.history, row])
            verdict = judge(progress.history, recipe)
            images = len(feed) - first * feed.batch_size
            speed = images / max(seconds, 1e-9)
            recorder.epoch(progress.history, seconds, speed)
            reporter.epoch(row, speed)
            is_best = verdict.best_epoch == epoch + 1
            due = time.monotonic() - last_saved >= recipe.checkpoint_seconds
            stopped = interrupt.name  # read once: a signal may come at any time
            if is_best or due or verdict.reason or stopped:
                best = verdict.best_epoch if is_best else None
                checkpoints.save(state, progress.to_dict(), best_epoch=best)
                last_saved = time.monotonic()
            if stopped and verdict.reason is None:
                return _interrupted(state, progress, checkpoints, stopped)
    checkpoints.wait()
    return Outcome(state, progress, verdict.best_epoch, verdict.reason)


def _scale_learning_rate(state: State, scale: float, placement: Placement) -> State:
    # Placed afresh each epoch, so that its sharding never changes and nothing recompiles.
    value = placement.replicate(jnp.asarray(scale, jnp.float32))
    return state.replace(hyper={**state.hyper, "learning_rate_scale": value})


def _account(
    progress: Progress,
    epoch: int,
    feed: Feed,
    chunk: tuple[int, Metrics],
    reporter: Reporter,
    checkpoints: Checkpoints,
) -> None:
    """Fetch the metrics of a chunk, add them, and stop if they are not finite."""
    first, metrics = chunk
    fetched = jax.device_get(metrics)
    steps = int(fetched["gradient_norm"][1])
    if not all(math.isfinite(float(total)) for total, _ in fetched.values()):
        checkpoints.wait()
        saved = checkpoints.steps
        begin = epoch * feed.steps + first + 1
        where = f"step {begin}" if steps == 1 else f"steps {begin} to {begin + steps - 1}"
        good = f"the last good checkpoint is of step {saved[-1]}" if saved else "no checkpoint yet"
        raise NonFiniteLossError(
            f"the loss or its gradient is not finite in {where} (epoch {epoch + 1}); {good}. "
            "Start a new run with a lower optimizer.learning_rate, more schedule.warmup_epochs "
            "or optimizer.clip_norm 1"
        )
    progress.add(fetched)
    reporter.chunk(epoch + 1, first + steps, feed.steps, progress.mean("loss"))


def _row(epoch: int, progress: Progress, validation: Mapping[str, float]) -> Row:
    return {
        "epoch": epoch + 1,
        "train_loss": progress.mean("loss"),
        "train_accuracy": progress.mean("accuracy"),
        "validation_loss": validation["loss"],
        "validation_accuracy": validation["accuracy"],
        "gradient_norm": progress.mean("gradient_norm"),
        "learning_rate": progress.mean("learning_rate"),
    }


def _interrupted(state: State, progress: Progress, checkpoints: Checkpoints, name: str) -> Outcome:
    checkpoints.wait()
    best = judge(progress.history, TrainRecipe()).best_epoch if progress.history else 0
    return Outcome(state, progress, best, f"stopped by {name}; the state is saved", name)
