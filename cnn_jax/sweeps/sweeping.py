"""`Sweep` and `sweep`: many trials of one recipe, judged on its validation part."""

from __future__ import annotations

import datetime
import functools
import hashlib
import json
import os
import platform
import shlex
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, get_args

from cnn_jax import environment, evaluation, nn
from cnn_jax.assembly import Assembly, program_of
from cnn_jax.data import Dataset
from cnn_jax.errors import RecipeError, RunError
from cnn_jax.evaluation import Estimate
from cnn_jax.execution import notes
from cnn_jax.population.plan import Plan
from cnn_jax.population.stacking import Wanted, choose_strategy, stacked
from cnn_jax.recipe import Recipe, digest_of, read_toml
from cnn_jax.run import named_overrides
from cnn_jax.run_data import data_again, load_data, located
from cnn_jax.run_folder import SCHEMA
from cnn_jax.sweeps.folder import SweepFolder
from cnn_jax.sweeps.space import (
    MOST_POINTS,
    Point,
    Range,
    Space,
    Values,
    count,
    grid,
    space_of,
)
from cnn_jax.sweeps.study import Search, Study, Trial, check_installed
from cnn_jax.sweeps.trials import Metric, StoppedError, better_first, train_trials
from cnn_jax.training.population import Strategy
from cnn_jax.training.progress import Console, Reporter

# Trials trained together: enough for the strategies to gain, and, where proposals follow
# from results, few enough to follow them often, or where machines share them, to share.
_BATCH = {"grid": 64, "random": 64, "adaptive": 27}
_SHARED_BATCH = 9


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


class Sweep:
    """The folder of a sweep.

    Attributes:
      path: the folder.
      recipe: what all trials have in common.
      space: what varies.
    """

    def __init__(
        self,
        folder: SweepFolder,
        *,
        model: nn.Module | None = None,
        data: Dataset | str | None = None,
    ) -> None:
        check_installed()
        self._folder, self._model, self._data = folder, model, data
        self.path = folder.path
        values = read_toml(folder.recipe)
        self.recipe = Recipe.from_dict(values)
        if digest_of(values) != self.info["recipe_digest"]:
            raise RunError(f"{str(folder.recipe)!r} was changed after the sweep began")
        self.space: Space = space_of(self.recipe, _axes(self.info["vary"]))

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        model: nn.Module | None = None,
        data: Dataset | str | None = None,
    ) -> Sweep:
        """Open the folder of a sweep; arguments and errors as of `Run.load`."""
        return cls(SweepFolder.open(path), model=model, data=data)

    def __repr__(self) -> str:
        return f"Sweep({self.shown!r}, {self.status}: {len(self.trials)} trials)"

    @property
    def shown(self) -> str:
        """The path as a person would type it."""
        return self._folder.shown

    @property
    def info(self) -> dict[str, Any]:
        """What sweep.json holds."""
        return self._folder.read_info()

    @property
    def status(self) -> str:
        """`running`, `interrupted`, `failed` or `finished`."""
        return str(self.info["status"])

    @functools.cached_property
    def _study(self) -> Study:
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
                self._carry_out(recipe, data, reporter, {})
        return self

    def _carry_out(
        self,
        recipe: Recipe,
        data: Dataset,
        reporter: Reporter | None,
        built: dict[Any, Assembly],
    ) -> None:
        """Batches of trials until all are done or a signal comes."""
        reporter = reporter or Console(recipe.train.epochs)
        environment.enable_compile_cache()
        info = self._folder.update_info(status="running")
        started, before = time.monotonic(), float(info.get("seconds", 0.0))
        noted = False
        try:
            if info.setdefault("data_digest", data.digest) != data.digest:
                raise RunError(f"the data set {data.name!r} has changed since this sweep began")
            while proposed := self._study.propose(info["batch"], info["total"]):
                numbers = [number for number, _ in proposed]
                members = [{"name": f"trial-{n}", "overrides": point} for n, point in proposed]
                plan = Plan.of(recipe, members, data, self._model, built)
                for note in [] if noted else notes(plan.assemblies[0], list(plan.dataset.notes)):
                    reporter.say(note)
                noted = True
                self._train(plan, numbers, info, reporter)
                info["seconds"] = round(before + time.monotonic() - started, 1)
                self._folder.write_info(info)
                self._write()
        except StoppedError as stop:
            reason = f"stopped by {stop}; the trials that had ended are kept"
            self._write()
            self._folder.update_info(status="interrupted", reason=reason)
            again = f"cnn-jax sweep --resume {shlex.quote(self.shown)}"
            reporter.say(f"{reason}; go on with: {again}")
            return
        except BaseException as error:  # whatever ends it is recorded, and raised again
            status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            self._folder.update_info(status=status, reason=str(error).partition("\n")[0])
            if isinstance(error, KeyboardInterrupt):
                error.add_note(f"go on with: cnn-jax sweep --resume {shlex.quote(self.shown)}")
            raise
        finally:
            stacked.cache_clear()  # programs and examples on the devices
        self._write()
        self._folder.update_info(status="finished", reason="")

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
        known = len(self.trials)
        reporter.say(
            f"trials {known + 1} to {known + len(numbers)} of {info['total']}, "
            f"strategy {taken['name']}: {taken['reason']}"
        )
        strategy: Strategy = taken["name"]  # type: ignore[assignment]
        train_trials(
            plan,
            strategy,
            info["metric"],
            lambda number, result: self._study.tell(numbers[number], result),
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


def sweep(
    recipe: Recipe | str | os.PathLike[str] | None = None,
    vary: Mapping[str, Any] | None = None,
    *,
    search: Search = "grid",
    trials: int | None = None,
    metric: Metric = "accuracy",
    batch: int | None = None,
    strategy: Wanted = "auto",
    storage: str | None = None,
    model: nn.Module | str | None = None,
    data: Dataset | str | None = None,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    reporter: Reporter | None = None,
    command: str = "cnn_jax.sweep",
    **overrides: Any,
) -> Sweep:
    """Try many settings of a recipe, in batches that are trained as populations.

    Trials are judged on the validation part alone; the test part is not looked at.

    Args:
      recipe, model, data, out, overwrite, reporter, command, **overrides: as of `train`.
      vary: field -> values, or a range; see `space.space_of`. With `seed` among them, settings are
        judged by their mean.
      search: `grid`, every point; `random`; or `adaptive`: proposals that follow from earlier
        results (a tree of Parzen estimators, Bergstra et al. 2011), one in three of a batch
        going on after a ninth and a third of the epochs.
      trials: how many, unless it is a grid.
      metric: of the validation part: `accuracy` or `loss`; the other one decides ties.
      batch: trials that are trained together; None chooses.
      strategy: as of `train_population`.
      storage: URL of a database that several machines share; None for a file in the folder.

    Raises:
      CnnJaxError: whatever is wrong, in one line, before any work begins.
    """
    check_installed()
    resolved, own_model = named_overrides(recipe, model, data, overrides)
    resolved = located(resolved)
    space = space_of(resolved, vary or {})
    total = _total(space, search, trials)
    if metric not in get_args(Metric):
        raise RecipeError(f"the metric must be accuracy or loss, not {metric!r}")
    if batch is not None and batch < 1:
        raise RecipeError(f"a batch has 1 trial or more, not {batch}")
    if strategy not in get_args(Wanted):
        raise RecipeError(f"the strategy must be auto, loop, vmap or map, not {strategy!r}")
    if resolved.train.tensorboard:
        raise RecipeError("train.tensorboard is for single runs: leave it out of a sweep")
    if search == "adaptive" and (fixed := {"seed", "train.epochs"} & space.keys()):
        raise RecipeError(
            f"{min(fixed)} cannot vary in an adaptive search, which drops trials by what they are "
            "after the same epochs; repeat what it finds with 'cnn-jax train --seeds'"
        )
    for point in grid(space) if search == "grid" else ():
        resolved.override(point)
    dataset = data if isinstance(data, Dataset) else load_data(resolved)
    built = _check_every_value(resolved, space, dataset, own_model)
    plan = Plan.of(resolved, [{"name": "probe", "overrides": {}}], dataset, own_model, built)
    if strategy in ("vmap", "map") and len(_programs(resolved, space)) > 1:
        raise RecipeError(
            f"the strategy cannot be {strategy}: one program cannot train all trials, which differ "
            "in more than seed and scalars; take loop or auto"
        )
    described = {name: _described(axis) for name, axis in space.items()}
    # Where the data lie may differ between machines; what they are may not.
    anywhere = resolved.override({"data.source": "-", "data.root": None, "data.corrections": None})
    same = json.dumps([anywhere.digest(), described, search, metric, dataset.digest], default=str)
    study = f"cnn_jax-{hashlib.sha256(same.encode()).hexdigest()[:16]}"
    if storage is not None:
        Study(storage, study, space, search, metric, seed=None, owner="")  # can it be used?
    name = f"{plan.dataset.name}-{resolved.model.name.removeprefix('custom:')}-sweep"
    folder = SweepFolder.create(out, name, overwrite=overwrite)
    with folder.lock():
        folder.write_recipe(resolved)
        folder.write_info(
            {
                "schema": SCHEMA,
                "status": "running",
                "command": command,
                "recipe_digest": resolved.digest(),
                "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                "vary": described,
                "search": search,
                "metric": metric,
                "total": total,
                "batch": batch or (_SHARED_BATCH if storage else _BATCH[search]),
                "wanted": strategy,
                "storage": storage,
                # Machines with the same sweep meet in one study; another sweep has another.
                "study": study,
                "validation_examples": len(plan.dataset.splits["validation"]),
                "environment": {
                    "versions": environment.versions(),
                    "hardware": environment.hardware(),
                    "commit": environment.commit(),
                },
            }
        )
        found = Sweep(folder, model=own_model, data=dataset)
        found._carry_out(resolved, dataset, reporter, built)
    return found


def _total(space: Space, search: str, trials: int | None) -> int:
    if search not in get_args(Search):
        raise RecipeError(f"the search must be grid, random or adaptive, not {search!r}")
    if search == "grid":
        if trials is not None:
            raise RecipeError("a grid has as many trials as points: leave --trials out")
        grid(space)
        return int(count(space) or 0)
    if trials is None or not 1 <= trials <= MOST_POINTS:
        raise RecipeError(
            f"a {search} search needs --trials, between 1 and {MOST_POINTS:,}, not {trials}"
        )
    return trials


def _check_every_value(
    recipe: Recipe, space: Space, data: Dataset, model: nn.Module | None
) -> dict[Any, Assembly]:
    """Build what each value alone makes of the recipe; return what was built.

    Raises:
      CnnJaxError: a value that no trial could have.
    """
    built: dict[Any, Assembly] = {}
    for changes in _programs(recipe, space):
        Plan.of(recipe, [{"name": "probe", "overrides": changes}], data, model, built)
    return built


def _programs(recipe: Recipe, space: Space) -> list[Point]:
    """Of each axis the values that make another program or read other data; the first of all."""
    seen: dict[Any, Point] = {}
    for name, axis in space.items():
        for value in axis.values if isinstance(axis, Values) else (axis.low, axis.high):
            own = recipe.override({name: value})
            seen.setdefault((own.data, program_of(own).digest()), {name: value})
    return list(seen.values())


def _setting(point: Point) -> Point:
    return {name: value for name, value in point.items() if name != "seed"}


def _described(axis: Any) -> dict[str, Any]:
    return {"kind": type(axis).__name__, **asdict(axis)}


def _axes(described: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    axes: dict[str, Any] = {}
    for name, axis in described.items():
        rest = {k: v for k, v in axis.items() if k != "kind"}
        axes[name] = Values(tuple(rest["values"])) if axis["kind"] == "Values" else Range(**rest)
    return axes
