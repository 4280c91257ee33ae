"""Runs of a record: timed as published, one after the other, each with its rows.

In the timed region: first weights, whitening, augmentation, training and the evaluation of six
views. Outside it, and given separately: loading, copying to the device, compiling, warming up.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax.data import Dataset, Split
from cnn_jax.errors import DataError, RunError
from cnn_jax.evaluation import Predictions
from cnn_jax.models import count_flops
from cnn_jax.training.checkpoints import Checkpoints
from experiments.speedrun.program import Program, State, Sums

VIEWS = 6
Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Images:
    """What the runs are given, on the device.

    Attributes:
      images, labels: uint8 `[N, 32, 32, 3]` and int32 `[N]`, to train on.
      evaluated: uint8 `[M, 32, 32, 3]`.
      split: the part that is evaluated, `test` or `validation`.
      dataset: both parts on the host, under `train` and that name.
      whole: the data set as it was loaded.
    """

    images: jax.Array
    labels: jax.Array
    evaluated: jax.Array
    split: str
    dataset: Dataset
    whole: Dataset

    @classmethod
    def of(cls, dataset: Dataset, *, held_out: bool) -> Images:
        """Train and validation together against test, or train against validation.

        Raises:
          DataError: the images are not uint8 32 x 32 with three channels of one of ten classes.
        """
        train = dataset.splits["train"]
        classes = len(dataset.classes["label"])
        pixels = train.images.dtype if isinstance(train.images, np.ndarray) else None
        if train.image_shape != (32, 32, 3) or pixels != np.uint8 or classes != 10:
            raise DataError(
                f"the records are of 32 x 32 x 3 pixels of ten classes, and {dataset.name!r} has "
                f"images {list(train.image_shape)} of {classes}"
            )
        split = "validation" if held_out else "test"
        if not held_out:
            train = joined(train, dataset.splits["validation"])
        parts = {"train": train, split: dataset.splits[split]}
        return cls(
            images=jax.device_put(np.asarray(train.images)),
            labels=jax.device_put(train.targets["label"]),
            evaluated=jax.device_put(np.asarray(parts[split].images)),
            split=split,
            dataset=replace(dataset, splits=parts),
            whole=dataset,
        )


def joined(one: Split, other: Split) -> Split:
    """The examples of two splits of images in memory."""
    return Split(
        images=np.concatenate([one.images, other.images]),
        targets={
            name: np.concatenate([target, other.targets[name]])
            for name, target in one.targets.items()
        },
        ids=np.concatenate([one.ids, other.ids]),
    )


@dataclass(frozen=True, eq=False)
class Outcome:
    """What one run gave.

    Attributes:
      seed: of the run.
      seconds: of the timed region.
      logits, alone: float32 `[M, 10]`, of six views together and of each image alone.
    """

    seed: int
    seconds: float
    logits: np.ndarray
    alone: np.ndarray

    def accuracy(self, labels: np.ndarray) -> float:
        """Of six views; a run that diverged has what its NaNs give, and counts."""
        return float((self.logits.argmax(axis=1) == labels).mean())

    def accuracy_alone(self, labels: np.ndarray) -> float:
        """Of each image alone."""
        return float((self.alone.argmax(axis=1) == labels).mean())

    def predictions(self, given: Images) -> Predictions:
        """For the tests and intervals of the library.

        Raises:
          EvaluationError: the run diverged.
        """
        split = given.dataset.splits[given.split]
        return Predictions(
            split=given.split,
            ids=split.ids,
            targets=split.targets["label"],
            logits=self.logits,
            classes=given.dataset.classes["label"],
        )


def run_flops(program: Program, evaluated: int) -> float:
    """Floating-point operations of a run: three forward passes an example, six views each."""
    forward = count_flops(program.record.network(program.dtype), (32, 32, 3))
    trained = program.steps * program.record.batch_size
    return float(forward) * (3 * trained + VIEWS * evaluated)


def compile_programs(program: Program, given: Images) -> float:
    """Compile all of a run and warm it up with a step; returns the seconds that took."""
    begun = time.perf_counter()
    state = program.begin(jax.random.key(0), given.images)
    state, _ = program.advance(state, given.images, given.labels, jnp.int32(1))
    jax.block_until_ready(program.evaluate(state, given.evaluated))
    return time.perf_counter() - begun


def run(
    program: Program,
    given: Images,
    seed: int,
    *,
    folder: Path | None = None,
    say: Say | None = None,
) -> Outcome:
    """One run, from a seed to the logits of the evaluated images.

    The host only queues calls: an epoch is one of them, and what it summed is fetched while the
    next runs. With a folder the host waits after each epoch to save a checkpoint.

    Args:
      program: what is trained, compiled.
      given: the images.
      seed: of weights, order and augmentation.
      folder: of the checkpoints of this run, or None for none; a run that stopped is taken
        up from there, and its seconds add up.
      say: is told of each epoch.

    Raises:
      RunError: the checkpoints are of other settings or other images.
      CheckpointError: one could not be written.
    """
    identity = [program.record, program.dtype, given.split, given.dataset.digest, seed]
    digest = hashlib.sha256(repr(identity).encode()).hexdigest()
    begun, spent, step = time.perf_counter(), 0.0, 0
    state = program.begin(jax.random.key(seed), given.images)
    checkpoints = None if folder is None else Checkpoints(folder, say or print)
    try:
        if checkpoints is not None and (found := checkpoints.restore(state)) is not None:
            if found[1].get("run") != digest:
                raise RunError(
                    f"the checkpoints in {str(folder)!r} are of other settings or other images: "
                    "give another folder"
                )
            state, progress = jax.device_put(found[0]), found[1]  # from arrays of the host
            begun, spent, step = time.perf_counter(), progress["seconds"], int(state.step)
        state = _trained(program, given, state, step, begun - spent, checkpoints, digest, say)
    finally:
        if checkpoints is not None:
            checkpoints.close()
    logits, alone = jax.block_until_ready(program.evaluate(state, given.evaluated))
    seconds = spent + time.perf_counter() - begun
    return Outcome(seed, seconds, np.asarray(logits), np.asarray(alone))


def _trained(
    program: Program,
    given: Images,
    state: State,
    step: int,
    begun: float,
    checkpoints: Checkpoints | None,
    digest: str,
    say: Say | None,
) -> State:
    """The state after the last step, from the state after `step` steps."""
    epochs = math.ceil(program.steps / program.steps_per_epoch)
    waiting: list[tuple[int, int, Sums]] = []

    def tell(most: int) -> None:
        while say is not None and len(waiting) > most:
            epoch, steps, sums = waiting.pop(0)
            loss, correct = (float(x) / steps / program.record.batch_size for x in sums)
            took = time.perf_counter() - begun
            say(
                f"epoch {epoch} of {epochs}: loss {loss:.4f}, train accuracy "
                f"{100 * correct:.2f} %, {took:,.1f} s"
            )

    while step < program.steps:
        epoch = step // program.steps_per_epoch + 1
        until = min(epoch * program.steps_per_epoch, program.steps)
        state, sums = program.advance(state, given.images, given.labels, jnp.int32(until))
        waiting.append((epoch, until - step, sums))
        step = until
        tell(1)
        if checkpoints is not None:
            jax.block_until_ready(state)
            progress: dict[str, Any] = {"seconds": time.perf_counter() - begun, "run": digest}
            checkpoints.save(state, progress, step=step, best_epoch=None)
    tell(0)
    return state
