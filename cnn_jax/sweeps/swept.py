"""`Sweep`: what was tried, what was best, and going on with it."""

from __future__ import annotations

import functools
import json
import platform
import shlex
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cnn_jax import environment, evaluation
from cnn_jax.assembly import Assembly
from cnn_jax.data import Dataset
from cnn_jax.errors import RunError
from cnn_jax.evaluation import Estimate
from cnn_jax.execution import notes
from cnn_jax.population.plan import Plan
from cnn_jax.population.stacking import choose_strategy, stacked
from cnn_jax.recipe import Recipe
from cnn_jax.recorded import Recorded
from cnn_jax.run_data import data_again
from cnn_jax.sweeps.folder import SweepFolder
from cnn_jax.sweeps.space import (
    Point,
    Range,
    Space,
    Values,
    space_of,
)
from cnn_jax.sweeps.study import Study, Trial, check_installed
from cnn_jax.sweeps.trials import Result, StoppedError, better_first, train_trials
from cnn_jax.training.population import Strategy
from cnn_jax.training.progress import Console, Reporter


@dataclass(frozen=True)
class Setting:
    """Trials that differ in the seed alone.

    Attributes:
      point: field -> value, without the seed.
      trials: those that were trained to the end.
      accuracy: mean validation accuracy, with its interval over seeds.
      loss: mean validation loss.
      failed: trials of it that were not finite; such a setting comes after all others.
    """

    point: Point
    trials: tuple[Trial, ...]
    accuracy: Estimate
    loss: float
    failed: int = 0


class Sweep(Recorded):
    """The folder of a sweep.

    Attributes:
      path: the folder.
      recipe: what all trials have in common.
    """

    folder_type = SweepFolder
    _folder: SweepFolder

    def __repr__(self) -> str:
        return f"Sweep({self.shown!r}, {self.status}: {len(self.trials)} trials)"

    @functools.cached_property
    def space(self) -> Space:
        """What varies."""
        return space_of(self.recipe, _axes(self.info["vary"]))

    @functools.cached_property
    def _study(self) -> Study:
        check_installed()
        info = self.info
        shared = info["storage"]
        return Study(
            shared or self._folder.database,
            info["study"],
            self.space,
            info["search"],
            info["metric"],
            seed=None if shared else self.recipe.seed,
            owner=f"{platform.node()}:{self.path}",
        )

    @property
    def trials(self) -> list[Trial]:
        """All that have ended, of every machine, by number."""
        return self._study.trials()

    def settings(self) -> list[Setting]:
        """What was trained to the end, the best first; repetitions are averaged."""
        groups: dict[str, list[Trial]] = {}
        failed: Counter[str] = Counter()
        for trial in self.trials:
            key = json.dumps(_setting(trial.point), sort_keys=True, default=str)
            if trial.state == "done":
                groups.setdefault(key, []).append(trial)
            failed[key] += trial.state == "failed"
        n = int(self.info["validation_examples"])
        found = []
        for key, trials in groups.items():
            accuracies = [trial.accuracy for trial in trials]
            estimate = evaluation.over_seeds(accuracies, n, percent=True)
            loss = sum(trial.loss for trial in trials) / len(trials)
            point = _setting(trials[0].point)
            found.append(Setting(point, tuple(trials), estimate, loss, failed[key]))
        rows = {
            k: {"validation_accuracy": s.accuracy.value, "validation_loss": s.loss}
            for k, s in enumerate(found)
        }
        order = [found[k] for k in better_first(rows, self.info["metric"])]
        return sorted(order, key=lambda setting: setting.failed > 0)

    @property
    def best(self) -> Recipe | None:
        """The recipe of the best setting, with the seed of the sweep's own; None without one."""
        settings = self.settings()
        return self.recipe.override(settings[0].point) if settings else None

    def resume(self, *, reporter: Reporter | None = None) -> Sweep:
        """Go on; trials that have ended stay, those of a batch that was cut short begin anew.

        Raises:
          RunError: another process works in the folder, or the data have changed.
        """
        with self._folder.lock():
            if self.status != "finished":
                recipe, data = data_again(self.recipe, self._data)
                self._study.lose(alone=self.info["storage"] is None)
                self.carry_out(recipe, data, reporter, {})
        return self

    def carry_out(
        self,
        recipe: Recipe,
        data: Dataset,
        reporter: Reporter | None,
        built: dict[Any, Assembly],
    ) -> None:
        """Batches of trials until all are done or a signal comes; the caller holds the lock.

        Args:
          recipe: the sweep's, with the place to which the data have moved.
          data: as it was read.
          reporter: what shows progress; None for the console.
          built: what was built already for such recipes.
        """
        reporter = reporter or Console(recipe.train.epochs)
        environment.enable_compile_cache()
        info = self._folder.read_info()
        started = time.monotonic() - float(info.get("seconds", 0.0))
        try:
            with self._advised(), self._folder.recording():
                if info.setdefault("data_digest", data.digest) != data.digest:
                    raise RunError(f"the data set {data.name!r} has changed since this sweep began")
                signal = self._batches(recipe, data, info, reporter, built, started)
        finally:
            stacked.cache_clear()  # programs and examples on the devices
        self._write()
        if signal is None:
            self._folder.update_info(status="finished", reason="")
        else:
            reason = f"stopped by {signal}; the trials that had ended are kept"
            reporter.say(self._folder.stopped(reason))

    def _batches(
        self,
        recipe: Recipe,
        data: Dataset,
        info: dict[str, Any],
        reporter: Reporter,
        built: dict[Any, Assembly],
        started: float,
    ) -> str | None:
        """Train batches until there are no more; returns the signal that ended it, or None."""
        noted = False
        while proposed := self._study.propose(info["batch"], info["total"]):
            numbers = [number for number, _ in proposed]
            members = [{"name": f"trial-{n}", "overrides": point} for n, point in proposed]
            plan = Plan.of(recipe, members, data, self._model, built)
            for note in [] if noted else notes(plan.assemblies[0], list(plan.dataset.notes)):
                reporter.say(note)
            noted = True
            try:
                self._train(plan, numbers, info, reporter)
            except StoppedError as stop:
                return str(stop)
            info["seconds"] = round(time.monotonic() - started, 1)
            kept = ("data_digest", "seconds", "strategy")
            self._folder.update_info(**{name: info[name] for name in kept if name in info})
            self._write()
        return None

    def _train(
        self, plan: Plan, numbers: Sequence[int], info: dict[str, Any], reporter: Reporter
    ) -> None:
        """Train a batch and write down what became of it."""
        taken = {"name": "loop", "reason": plan.obstacle()}
        if taken["reason"] is None:
            if "strategy" not in info:  # of the first batch that leaves a choice
                choice = choose_strategy(plan, info["wanted"])
                info["strategy"] = {"name": choice.strategy, "reason": choice.reason}
            taken = info["strategy"]
        reporter.say(
            f"{len(numbers)} trials, {len(self.trials)} of {info['total']} done, "
            f"strategy {taken['name']}: {taken['reason']}"
        )
        strategy: Strategy = taken["name"]  # type: ignore[assignment]

        def tell(number: int, result: Result) -> None:
            self._study.tell(numbers[number], result)
            if strategy == "loop":  # whose epochs are not shown
                reporter.say(f"trial {numbers[number]}: {result}")

        train_trials(
            plan,
            strategy,
            info["metric"],
            tell,
            halving=info["search"] == "adaptive",
            reporter=reporter,
        )

    def _write(self) -> None:
        self._folder.write_trials(self.space, self.trials)
        if best := self.best:
            self._folder.write_best(best)

    def summary(self) -> str:
        """What was best, and how to go on."""
        settings, trials = self.settings(), self.trials
        elsewhere = self._study.under_way() if self.info["storage"] else 0
        others = f"; {elsewhere} are under way on other machines" if elsewhere else ""
        if not settings and elsewhere and not trials:
            return f"all trials are taken{others}"
        if not settings:
            failed = next((t.failure for t in trials if t.failure), "none was trained to the end")
            return f"no trial of {len(trials)} can be used: {failed}"
        best = settings[0]
        said = ", ".join(f"{name} {value}" for name, value in best.point.items()) or "the recipe"
        kinds = f"{len(trials)} trials"
        kinds += f", {len(settings)} settings" if len(settings) < len(trials) else ""
        figure = str(best.accuracy).replace(" [no interval]", "")
        test = f"cnn-jax train {shlex.quote(self.shown + '/best.toml')} --seeds 5"
        return (
            f"best of {kinds}{others}: {said}: validation accuracy {figure}\n"
            f"it was chosen for that figure, so expect less; test it with: {test}"
        )


def _setting(point: Point) -> Point:
    return {name: value for name, value in point.items() if name != "seed"}


def _axes(described: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    axes: dict[str, Any] = {}
    for name, axis in described.items():
        rest = {k: v for k, v in axis.items() if k != "kind"}
        axes[name] = Values(tuple(rest["values"])) if axis["kind"] == "Values" else Range(**rest)
    return axes
