"""Training trials to judge them: in batches, on validation data, dropping the worst on the way."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import jax
import numpy as np

from cnn_jax.assembly import Assembly
from cnn_jax.errors import EvaluationError, NonFiniteLossError
from cnn_jax.population.plan import Plan
from cnn_jax.population.stacking import stacked, validation_of
from cnn_jax.recipe import Recipe
from cnn_jax.training import population
from cnn_jax.training.devices import numerics
from cnn_jax.training.keepers import NoKeeper
from cnn_jax.training.loop import fit
from cnn_jax.training.member import Progress, Row
from cnn_jax.training.population import Stacked, Strategy
from cnn_jax.training.progress import Reporter, WithoutEpochs
from cnn_jax.training.state import State
from cnn_jax.training.stopping import judge

Metric = Literal["accuracy", "loss"]

_ETA = 3  # one in so many goes on at each rung


@dataclass(frozen=True)
class Result:
    """How a trial ended.

    Attributes:
      row: the figures of its best or last epoch, as the recipe selects; None without one.
      epochs: trained.
      failure: what was not finite, or None.
      dropped: whether it was left behind because others were better.
    """

    row: Row | None
    epochs: int
    failure: str | None = None
    dropped: bool = False

    def __str__(self) -> str:
        """As `validation accuracy 97.22 %, loss 0.1234 after 10 epochs`."""
        if self.failure is not None or self.row is None:
            return self.failure or "no epoch was finished"
        accuracy, loss = self.row["validation_accuracy"], self.row["validation_loss"]
        epochs = "1 epoch" if self.epochs == 1 else f"{self.epochs} epochs"
        left = ", left behind" if self.dropped else ""
        return f"validation accuracy {100 * accuracy:.2f} %, loss {loss:.4f} after {epochs}{left}"


class StoppedError(Exception):
    """A signal ended training; its name."""


def rungs_of(epochs: int) -> tuple[int, ...]:
    """Epochs after which one trial in three goes on: a ninth and a third of all."""
    rungs = (math.ceil(epochs / _ETA**2), math.ceil(epochs / _ETA))
    return tuple(dict.fromkeys(rung for rung in rungs if rung < epochs))


def better_first(rows: Mapping[int, Row], metric: Metric) -> list[int]:
    """The keys of validation figures, the best first; by number among equals."""

    def key(number: int) -> tuple[float, float, int]:
        accuracy = -rows[number]["validation_accuracy"]
        loss = rows[number]["validation_loss"]
        return (accuracy, loss, number) if metric == "accuracy" else (loss, accuracy, number)

    return sorted(rows, key=key)


def train_trials(
    plan: Plan,
    strategy: Strategy,
    metric: Metric,
    tell: Callable[[int, Result], None],
    *,
    halving: bool,
    reporter: Reporter,
) -> None:
    """Train the members of a plan on their training part; the test part is never looked at.

    Args:
      plan: the trials.
      strategy: how they are trained.
      metric: of the validation part, by which they are compared.
      tell: called with the number and the result of each as soon as it has ended.
      halving: whether only one in three goes on at each rung (successive halving, Jamieson
        and Talwalkar 2016).
      reporter: what shows progress.

    Raises:
      StoppedError: a signal ended it.
    """
    members = [Progress() for _ in plan.names]
    told: set[int] = set()

    def ended(number: int, *, dropped: bool = False) -> None:
        member, recipe = members[number], plan.recipes[number]
        if number not in told:
            told.add(number)
            row = _selected(member.history, recipe)
            failure = None if dropped else member.failure
            tell(number, Result(row, len(member.history), failure, dropped))

    going: _Going
    if strategy == "loop":
        going = _InTurn(plan, members, ended, reporter)
    else:
        going = _Together(plan, members, strategy, reporter)
    for until in (*(rungs_of(plan.recipes[0].train.epochs) if halving else ()), None):
        going.train(until)
        rows: dict[int, Row] = {}
        for number, (member, recipe) in enumerate(zip(members, plan.recipes, strict=True)):
            row = _selected(member.history, recipe)
            if member.verdict(recipe.train).reason is not None:
                ended(number)
            elif row is not None:
                rows[number] = row
        if going.signal is not None:
            raise StoppedError(going.signal)
        # What has ended counts among the best; it cannot be dropped any more.
        done = {n: r for n in told if (r := _selected(members[n].history, plan.recipes[n]))}
        done = {n: row for n, row in done.items() if members[n].failure is None}
        kept = math.ceil(len(rows | done) / _ETA)
        for number in better_first(rows | done, metric)[kept:]:
            if number in rows:
                members[number].fail("others were better")
                ended(number, dropped=True)


def _selected(history: Sequence[Row], recipe: Recipe) -> Row | None:
    """The epoch whose state the recipe would evaluate."""
    if not history:
        return None
    best = judge(history, recipe.train).best_epoch
    return history[best - 1 if recipe.train.select == "best" else -1]


class _Going(Protocol):
    """Trials under way.

    Attributes:
      signal: name of the signal that ended training early, or came with its last step.
    """

    signal: str | None

    def train(self, until: int | None) -> None:
        """Train those that have not failed up to an epoch, or to the end."""
        ...


class _InTurn:
    """One trial after another."""

    def __init__(
        self,
        plan: Plan,
        members: Sequence[Progress],
        ended: Callable[[int], None],
        reporter: Reporter,
    ) -> None:
        self._plan, self._members, self._ended = plan, members, ended
        self._reporter = WithoutEpochs(reporter)
        self.signal: str | None = None
        self._states: dict[int, State] = {}

    def train(self, until: int | None) -> None:
        """See `_Going`."""
        for number, member in enumerate(self._members):
            assembly, state = self._plan.assemblies[number], self._states.pop(number, None)
            if member.verdict(assembly.recipe.train).reason is not None:
                continue

            def validate(variables: Any, assembly: Assembly = assembly) -> Callable[[int], Any]:
                score = assembly.scoring(variables)
                return lambda _: score()

            with (
                numerics(assembly.recipe.train.precision),
                contextlib.suppress(NonFiniteLossError, EvaluationError),  # the member knows
            ):
                outcome = fit(
                    state or assembly.initial_state(),
                    [member],
                    assembly.run_chunk,
                    validate,
                    assembly.feeds["train"],
                    recipe=assembly.recipe.train,
                    seed=assembly.recipe.seed,
                    keeper=NoKeeper(),
                    record=_nothing,
                    reporter=self._reporter,
                    placement=assembly.placement,
                    until=until,
                )
                self.signal = outcome.signal
                if until is not None:
                    self._states[number] = outcome.state
            if member.verdict(assembly.recipe.train).reason is not None:
                self._ended(number)
            if self.signal is not None:
                return


class _Together:
    """All trials as one program; a smaller one once half of them are left behind."""

    def __init__(
        self, plan: Plan, members: Sequence[Progress], strategy: Stacked, reporter: Reporter
    ) -> None:
        self._plan, self._strategy, self._reporter = plan, strategy, reporter
        self._members = list(members)
        self.signal: str | None = None
        self._state = stacked(strategy, plan).initial_state()

    def train(self, until: int | None) -> None:
        """See `_Going`."""
        left = [n for n, member in enumerate(self._members) if member.failure is None]
        if not left:
            return
        if len(left) <= len(self._members) // 2:
            self._plan = self._plan.take(left)
            self._members = [self._members[n] for n in left]
            placement = self._plan.assemblies[0].placement
            taken = jax.tree.map(lambda x: x[np.array(left)], self._state)
            self._state = placement.split(population.pad(taken, placement.count))
        stack = stacked(self._strategy, self._plan)
        first = self._plan.assemblies[0]
        with (
            numerics(first.recipe.train.precision),
            contextlib.suppress(NonFiniteLossError, EvaluationError),  # the members know
        ):
            outcome = fit(
                self._state,
                self._members,
                stack.run_chunk,
                validation_of(self._strategy, self._plan),
                stack.feed,
                recipe=first.recipe.train,
                seed=stack.seeds,
                keeper=NoKeeper(),
                record=_nothing,
                reporter=self._reporter,
                placement=first.placement,
                until=until,
            )
            self._state, self.signal = outcome.state, outcome.signal


def _nothing(histories: Sequence[Sequence[Row]], seconds: float, images_per_second: float) -> None:
    """Trials leave no rows."""
