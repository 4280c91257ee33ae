"""The training loop. There is no second one: a single run is a population of one.

Chunks of steps run on the device; progress, checkpoints and signals live between them.
Metrics are fetched one chunk late, and the score of an epoch while the next one is trained, so
that no step waits for the host.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax.errors import EvaluationError, NonFiniteLossError
from cnn_jax.recipe import TrainRecipe
from cnn_jax.training.devices import Placement
from cnn_jax.training.interrupt import Interrupt
from cnn_jax.training.keepers import Change, Keeper
from cnn_jax.training.member import Progress, Row
from cnn_jax.training.progress import Reporter
from cnn_jax.training.sizes import side_of
from cnn_jax.training.state import Batch, State
from cnn_jax.training.step import Metrics, RunChunk
from cnn_jax.training.stopping import Verdict, scores_decide


class Chunks(Protocol):
    """The training batches of all members; see `feed.Feed`."""

    batch_size: int
    steps: int

    @property
    def resident(self) -> Batch:
        """The examples on every device, or nothing where they are read while training."""
        ...

    def __len__(self) -> int: ...

    def chunk_steps(self, wanted: int | None, first_step: int = 0) -> int:
        """Steps in a chunk."""
        ...

    def train_chunks(
        self, *, seed: Any, epoch: int, first_step: int, chunk_steps: int
    ) -> Iterator[Batch]:
        """Chunks of an epoch from `first_step` on, on the devices."""
        ...


@dataclass(frozen=True)
class Outcome:
    """How training ended.

    Attributes:
      state: the last state, of all members.
      members: all figures of each.
      verdicts: each one's best epoch, and why it ended.
      interrupted: name of the signal that ended it early, or None.
      signal: name of the signal that came, also where training had ended with that very step.
    """

    state: State
    members: list[Progress]
    verdicts: list[Verdict]
    interrupted: str | None = None
    signal: str | None = None


# Begins to validate the present variables. What it returns waits for that, and gives validation
# loss and accuracy of a member, by its number; it raises `EvaluationError` for one whose
# predictions are not finite.
Validate = Callable[[Mapping[str, Any]], Callable[[int], Mapping[str, float]]]
# Keeps the figures of finished epochs: all rows of each member so far, seconds of the last
# epoch, images a second.
Record = Callable[[Sequence[Sequence[Row]], float, float], None]


def fit(
    state: State,
    members: list[Progress],
    run_chunk: RunChunk,
    validate: Validate,
    feed: Chunks,
    *,
    recipe: TrainRecipe,
    seed: int | Sequence[int],
    keeper: Keeper,
    record: Record,
    reporter: Reporter,
    placement: Placement,
    until: int | None = None,
) -> Outcome:
    """Train from `state` until the recipe, convergence or a signal ends it.

    Args:
      state, members: where to begin; after a resume, what the checkpoint held. With several
        members each leaf of the state has a leading axis for them. One that has ended goes
        on being computed with the others, but nothing of it is kept.
      run_chunk: K compiled steps of all members.
      validate: called after each epoch.
      feed: the training part.
      recipe: length, patience, checkpoints.
      seed: of the data order; of several members a list.
      keeper, record, reporter: where to save, write and show.
      placement: for the scalars the loop changes.
      until: stop after this epoch, to be called again with what came out; None for the end.

    Raises:
      NonFiniteLossError, EvaluationError: a loss, a gradient or predictions were not finite,
        in the last member that was left; checkpoints stay as they were.
      CheckpointError: a checkpoint could not be written.
    """
    epoch = max(len(member.history) for member in members)
    entered = int(np.ravel(jax.device_get(state.step))[0]) - epoch * feed.steps
    chunk_steps = feed.chunk_steps(recipe.chunk_steps, entered)
    verdicts = [member.verdict(recipe) for member in members]
    late = scored_late(recipe)
    book = _Book(members, recipe, keeper, record, reporter)
    first = entered
    with Interrupt() as interrupt:
        ended: _Ended | None = None  # an epoch whose score is not there yet
        while any(verdict.reason is None for verdict in verdicts) and epoch != until:
            state = _scale_learning_rate(state, verdicts, placement)
            running = [m for m, v in zip(members, verdicts, strict=True) if v.reason is None]
            account = _Account(members, running, epoch, feed.steps, keeper, reporter)
            started = time.monotonic()
            pending: tuple[int, Metrics] | None = None
            done = first
            side = side_of(recipe.sizes, epoch, recipe.epochs)
            for items in feed.train_chunks(
                seed=seed, epoch=epoch, first_step=first, chunk_steps=chunk_steps
            ):
                with jax.transfer_guard("disallow"):
                    state, metrics = run_chunk(state, feed.resident, items, side=side)
                if ended is not None:
                    (verdicts, _), ended = book.close(ended, verdicts), None
                    started = time.monotonic()  # the device comes to this epoch now
                if pending is not None:
                    account.add(*pending)
                pending, done = (done, metrics), done + chunk_steps
                due = book.checkpoint_due()
                stopped = interrupt.name
                if done == feed.steps or not (stopped or due):
                    continue  # the end of an epoch is saved once it is validated
                account.add(*pending)
                pending = None
                book.pause(state)
                if stopped:
                    return _interrupted(state, members, recipe, keeper, stopped)

            images = (len(feed) - first * feed.batch_size) * len(running)
            epoch, first = epoch + 1, 0
            if late and epoch not in (recipe.epochs, until) and interrupt.name is None:
                own = _copy(state)  # the next step takes the arrays of the other
                score = validate(own.evaluated)
                ended = _Ended(account, own, score, images, started, pending)
                continue
            if pending is not None:
                account.add(*pending)
            seconds = time.monotonic() - started
            score = validate(state.evaluated)
            ended = _Ended(account, state, score, images, started, None, seconds)
            (verdicts, stopped), ended = book.close(ended, verdicts, interrupt), None
            if stopped and any(verdict.reason is None for verdict in verdicts):
                return _interrupted(state, members, recipe, keeper, stopped)
    keeper.wait()
    return Outcome(state, members, verdicts, signal=interrupt.name)


def scored_late(recipe: TrainRecipe) -> bool:
    """Whether an epoch is scored while the next one is trained.

    The figures and what is saved are the same, and the device holds a second state. Never where
    scores end training or lower the learning rate. Not on a CPU: its cores train and score, and
    neither would wait for the other.
    """
    return jax.default_backend() != "cpu" and not scores_decide(recipe)


def _scale_learning_rate(state: State, verdicts: Sequence[Verdict], placement: Placement) -> State:
    # Placed afresh each epoch, so that its sharding never changes and nothing recompiles.
    scale = state.hyper["learning_rate_scale"]
    values = np.array([verdict.learning_rate_scale for verdict in verdicts], np.float32)
    values = np.resize(values, scale.shape)
    value = placement.split(values) if scale.ndim else placement.replicate(values)
    return state.replace(hyper={**state.hyper, "learning_rate_scale": value})


def _change(before: Verdict, after: Verdict, epoch: int) -> Change:
    """What an epoch brought for a member, by its verdicts; nothing if it had ended before."""
    training = before.reason is None
    return Change(
        best=training and after.best_epoch == epoch + 1,
        ended=training and after.reason is not None,
    )


@jax.jit
def _copy(state: State) -> State:
    return jax.tree.map(jnp.copy, state)


@dataclass(frozen=True)
class _Ended:
    """An epoch of which all steps are under way.

    Attributes:
      account: of the epoch.
      state: after its last step.
      score: waits for the validation.
      images: how many were trained on, for all members.
      started: when, in monotonic seconds.
      pending: the chunk whose metrics are not fetched yet.
      seconds: how long the steps took; None while they are not known to have ended.
    """

    account: _Account
    state: State
    score: Callable[[int], Mapping[str, float]]
    images: int
    started: float
    pending: tuple[int, Metrics] | None
    seconds: float | None = None


@dataclass
class _Book:
    """Writes down the epochs that have ended, and knows when a checkpoint is due."""

    members: list[Progress]
    recipe: TrainRecipe
    keeper: Keeper
    record: Record
    reporter: Reporter

    def __post_init__(self) -> None:
        self._saved = time.monotonic()

    def checkpoint_due(self) -> bool:
        """Whether the last one is long ago."""
        return time.monotonic() - self._saved >= self.recipe.checkpoint_seconds

    def pause(self, state: State) -> None:
        """Save in the middle of an epoch."""
        self.keeper.pause(state, self.members)
        self._saved = time.monotonic()

    def close(
        self, ended: _Ended, before: Sequence[Verdict], interrupt: Interrupt | None = None
    ) -> tuple[list[Verdict], str | None]:
        """Fetch what there is of an epoch, write, show and save it.

        Returns:
          The verdicts, and the name of a signal that calls for the checkpoint that is then here.
        """
        account, seconds = ended.account, ended.seconds
        if ended.pending is not None:
            account.add(*ended.pending)
        if seconds is None:
            seconds = time.monotonic() - ended.started
        account.end_epoch(ended.score)
        verdicts = [member.verdict(self.recipe) for member in self.members]
        speed = ended.images / max(seconds, 1e-9)
        self.record([member.history for member in self.members], seconds, speed)
        if rows := [member.history[-1] for member in account.running if member.failure is None]:
            self.reporter.epoch(rows, speed)
        changes = [_change(*pair, account.epoch) for pair in zip(before, verdicts, strict=True)]
        over = all(verdict.reason is not None for verdict in verdicts)
        stopped = interrupt.name if interrupt else None  # read once: it may come at any time
        due = self.checkpoint_due() or over or stopped is not None
        if self.keeper.epoch(ended.state, self.members, changes, due=due):
            self._saved = time.monotonic()
        return verdicts, stopped


@dataclass(frozen=True)
class _Account:
    """Adds the metrics of chunks to the members, and looks whether they are finite."""

    members: list[Progress]
    running: list[Progress]
    epoch: int
    steps: int
    keeper: Keeper
    reporter: Reporter

    def add(self, first: int, metrics: Metrics) -> None:
        """Fetch the metrics of the chunk that began with step `first` of the epoch.

        Raises:
          NonFiniteLossError: no member is left whose loss is finite.
        """
        fetched = {
            name: (np.ravel(total).astype(np.float64), np.ravel(weight).astype(np.float64))
            for name, (total, weight) in jax.device_get(metrics).items()
        }
        steps = int(fetched["gradient_norm"][1][0])
        for number, member in enumerate(self.members):
            if member.failure is not None or member not in self.running:
                continue
            own = {n: (float(t[number]), float(w[number])) for n, (t, w) in fetched.items()}
            if all(math.isfinite(total) for total, _ in own.values()):
                member.add(own)
                continue
            self.fail(number, self._failure(first, steps))
        if all(member.failure is not None for member in self.members):
            self._stop()
        left = [member for member in self.running if member.failure is None]
        if not left:
            return  # the others had ended before
        loss = sum(member.mean("loss") for member in left) / len(left)
        self.reporter.chunk(self.epoch + 1, first + steps, self.steps, loss)

    def end_epoch(self, score: Callable[[int], Mapping[str, float]]) -> None:
        """Give each member that is still training its row of the history.

        Raises:
          EvaluationError: no member is left whose predictions are finite.
        """
        for number, member in enumerate(self.members):
            if member in self.running and member.failure is None:
                try:
                    member.end_epoch(score(number))
                except EvaluationError as error:
                    self.fail(number, str(error))
                    if all(one.failure is not None for one in self.members):
                        raise

    def fail(self, number: int, reason: str) -> None:
        """End the training of a member, and say so where others go on."""
        self.members[number].fail(reason)
        if len(self.members) > 1:
            self.reporter.say(f"member {number + 1} of {len(self.members)}: {reason}")

    def _failure(self, first: int, steps: int) -> str:
        begin = self.epoch * self.steps + first + 1
        where = f"step {begin}" if steps == 1 else f"steps {begin} to {begin + steps - 1}"
        return f"the loss or its gradient is not finite in {where} (epoch {self.epoch + 1})"

    def _stop(self) -> None:
        self.keeper.wait()
        saved = self.keeper.steps
        good = f"the last good checkpoint is of step {saved[-1]}" if saved else "no checkpoint yet"
        raise NonFiniteLossError(
            f"{self.running[-1].failure}; {good}. Start a new run with a lower "
            "optimizer.learning_rate, more schedule.warmup_epochs or optimizer.clip_norm 1"
        )


def _interrupted(
    state: State, members: list[Progress], recipe: TrainRecipe, keeper: Keeper, name: str
) -> Outcome:
    keeper.wait()
    verdicts = [member.verdict(recipe) for member in members]
    return Outcome(state, members, verdicts, interrupted=name, signal=name)
