"""The record of a sweep's trials: an Optuna study, in a file of ours or a database of yours.

Optuna proposes points and keeps what became of them, so that a sweep can be resumed, and several
machines can share one through its database. It is imported only here.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import json
import logging
import re
import secrets
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from cnn_jax.errors import RunError
from cnn_jax.sweeps.space import Point, Range, Space, grid
from cnn_jax.sweeps.trials import Metric, Result

Search = Literal["grid", "random", "adaptive"]
State = Literal["done", "dropped", "failed"]

# What stands beside a trial: who began it, by which claim, and whether that process was killed.
_OWNER, _CLAIM, _LOST = "owner", "claim", "lost"


@dataclass(frozen=True)
class Trial:
    """A point of the space, and what became of it.

    Attributes:
      number: in the study, from 0.
      point: field -> value.
      state: `done`; `dropped`, when others were better on the way; `failed`, not finite.
      accuracy, loss: on the validation part; NaN of a trial that failed in its first epoch.
      epochs: trained.
      failure: what was not finite, or empty.
    """

    number: int
    point: Point
    state: State
    accuracy: float
    loss: float
    epochs: int
    failure: str = ""


def check_installed() -> None:
    """Raise `RunError` unless optuna is there; it is not imported, which takes a second."""
    if "optuna" not in sys.modules and importlib.util.find_spec("optuna") is None:
        raise RunError("a sweep needs optuna: pip install 'cnn_jax[sweep]'")


class Study:
    """Trials of one sweep.

    Args:
      url: of the database, such as `sqlite:////path/study.db`.
      name: of the study in it; who uses the same one shares it.
      space, search, metric: of the sweep.
      seed: of proposed points; None where several machines propose.
      owner: who begins trials: the folder of the sweep on this machine.

    Raises:
      RunError: the database cannot be opened.
    """

    def __init__(
        self,
        url: str,
        name: str,
        space: Space,
        search: Search,
        metric: Metric,
        *,
        seed: int | None,
        owner: str,
    ) -> None:
        import optuna

        optuna.logging.set_verbosity(logging.WARNING)
        self._optuna, self._space, self._search, self._metric = optuna, space, search, metric
        self._url, self._owner = url, owner
        with self._database():
            self._study = self._create(url, name)
        if search != "grid":
            # A resumed study must not propose once more what it began with.
            offset = None if seed is None else (seed + len(self._trials())) % 2**32
            sampler: Any = optuna.samplers.RandomSampler(offset)
            if search == "adaptive":
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                    sampler = optuna.samplers.TPESampler(seed=offset, constant_liar=True)
            self._study.sampler = sampler

    def _create(self, url: str, name: str) -> Any:
        """Create the study or open it; its tables too, where another machine may do so now."""
        import sqlalchemy.exc

        def create() -> Any:
            return self._optuna.create_study(
                storage=url,
                study_name=name,
                direction="maximize" if self._metric == "accuracy" else "minimize",
                load_if_exists=True,
            )

        # Two that begin at once in an empty database both make its tables: one of them fails.
        raced = (
            sqlalchemy.exc.IntegrityError,
            sqlalchemy.exc.ProgrammingError,
            sqlalchemy.exc.OperationalError,
        )
        for pause in (0.5, 1.0, 2.0):
            try:
                return create()
            except raced as error:
                if not re.search("already exists|duplicate|locked", str(error)):
                    raise
            time.sleep(pause)
        return create()

    @contextlib.contextmanager
    def _database(self) -> Iterator[None]:
        """What goes wrong with the database in one line; the trials that ended are in it."""
        import sqlalchemy.exc

        broken = (
            sqlalchemy.exc.SQLAlchemyError,
            self._optuna.exceptions.StorageInternalError,
            ImportError,
            ValueError,
            OSError,
        )
        try:
            yield
        except broken as error:
            reason = str(error.__cause__ or error).splitlines()[0]
            if isinstance(error.__cause__, ModuleNotFoundError):
                reason += " (such databases are read by that Python package)"
            raise RunError(f"cannot use the study in {self._url!r}: {reason}") from error

    def propose(self, count: int, total: int) -> list[tuple[int, Point]]:
        """Number and point of the next trials, at most so many; none when all were tried.

        Args:
          count: of a batch.
          total: of the sweep, those of other machines and those under way included.
        """
        with self._database():
            if self._search == "grid":
                while points := list(itertools.islice(self._untried(), count)):
                    claimed = [self._claim(point) for point in points]
                    if ours := [one for one in claimed if one is not None]:
                        return ours
                return []
            begun = sum(1 for trial in self._trials() if self._counts(trial))
            return [self._ask() for _ in range(min(count, total - begun))]

    def _ask(self) -> tuple[int, Point]:
        trial = self._study.ask(self._distributions())
        trial.set_user_attr(_OWNER, self._owner)
        return trial.number, self._decoded(trial.params)

    def _claim(self, point: Point) -> tuple[int, Point] | None:
        """Begin a trial of a point; None if another machine began one at the same time."""
        coded = self._coded(point)
        made = self._optuna.trial.create_trial(
            state=self._optuna.trial.TrialState.RUNNING,
            params=coded,
            distributions=self._distributions(),
            user_attrs={_OWNER: self._owner, _CLAIM: secrets.token_hex(8)},
        )
        self._study.add_trial(made)
        same = [t for t in self._trials() if self._counts(t) and t.params == coded]
        mine = next(t for t in same if t.user_attrs.get(_CLAIM) == made.user_attrs[_CLAIM])
        if min(trial.number for trial in same) < mine.number:
            self._give_up(mine)
            return None
        return mine.number, point

    def _counts(self, trial: Any) -> bool:
        """Whether a trial is one of the sweep: not lost, and with a value for every field.

        One without was being proposed when its process was killed, or is being proposed now.
        """
        return _LOST not in trial.user_attrs and trial.params.keys() == self._space.keys()

    def _give_up(self, trial: Any) -> None:
        self._optuna.trial.Trial(self._study, trial._trial_id).set_user_attr(_LOST, True)
        self._study.tell(trial.number, state=self._optuna.trial.TrialState.FAIL)

    def tell(self, number: int, result: Result) -> None:
        """Write down what became of a trial."""
        with self._database():
            self._tell(number, result)

    def _tell(self, number: int, result: Result) -> None:
        states = self._optuna.trial.TrialState
        trial = self._optuna.trial.Trial(self._study, self._id(number))
        trial.set_user_attr("epochs", result.epochs)
        if result.row is not None:
            trial.set_user_attr("accuracy", result.row["validation_accuracy"])
            trial.set_user_attr("loss", result.row["validation_loss"])
        if result.failure is not None or result.row is None:
            trial.set_user_attr("failure", result.failure or "no epoch was finished")
            self._study.tell(number, state=states.FAIL)
            return
        value = result.row[f"validation_{self._metric}"]
        if result.dropped:
            trial.report(value, result.epochs)
            self._study.tell(number, state=states.PRUNED)
        else:
            self._study.tell(number, value)

    def lose(self, *, alone: bool) -> None:
        """Give up what a process of this folder began and did not end: it is tried again.

        Args:
          alone: whether nobody else uses the study, so that all that is under way is lost.
        """
        running = self._optuna.trial.TrialState.RUNNING
        with self._database():
            for trial in self._trials():
                ours = alone or trial.user_attrs.get(_OWNER) == self._owner
                if trial.state == running and ours:
                    self._give_up(trial)

    def under_way(self) -> int:
        """Trials that other machines have begun and not ended."""
        running = self._optuna.trial.TrialState.RUNNING
        return sum(1 for t in self._trials() if t.state == running and self._counts(t))

    def trials(self) -> list[Trial]:
        """All that have ended, by number."""
        names = {"COMPLETE": "done", "PRUNED": "dropped", "FAIL": "failed"}
        found = []
        for trial in self._trials():
            if trial.state.name not in names or not self._counts(trial):
                continue
            kept = trial.user_attrs
            found.append(
                Trial(
                    number=trial.number,
                    point=self._decoded(trial.params),
                    state=names[trial.state.name],  # type: ignore[arg-type]
                    accuracy=float(kept.get("accuracy", "nan")),
                    loss=float(kept.get("loss", "nan")),
                    epochs=int(kept.get("epochs", 0)),
                    failure=str(kept.get("failure", "")),
                )
            )
        return found

    def _trials(self) -> list[Any]:
        with self._database():
            return list(self._study.get_trials(deepcopy=False))

    def _id(self, number: int) -> int:
        return next(t._trial_id for t in self._trials() if t.number == number)

    def _untried(self) -> Iterator[Point]:
        tried = [t.params for t in self._trials() if self._counts(t)]
        seen = {json.dumps(params, sort_keys=True) for params in tried}
        for point in grid(self._space):
            if json.dumps(self._coded(point), sort_keys=True) not in seen:
                yield point

    def _distributions(self) -> dict[str, Any]:
        kinds = self._optuna.distributions
        made: dict[str, Any] = {}
        for name, axis in self._space.items():
            if isinstance(axis, Range):
                kind = kinds.IntDistribution if axis.integer else kinds.FloatDistribution
                made[name] = kind(axis.low, axis.high, log=axis.log)
            else:
                made[name] = kinds.CategoricalDistribution([_code(v) for v in axis.values])
        return made

    def _coded(self, point: Point) -> Point:
        return {
            name: value if isinstance(self._space[name], Range) else _code(value)
            for name, value in point.items()
        }

    def _decoded(self, params: Point) -> Point:
        point = {}
        for name, axis in self._space.items():
            value = params[name]
            if not isinstance(axis, Range):
                value = next(v for v in axis.values if _code(v) == value)
            point[name] = value
        return point


def _code(value: Any) -> Any:
    """What a database can hold: plain values as they are, others as JSON."""
    plain = value is None or isinstance(value, bool | int | float | str)
    return value if plain else json.dumps(value)
