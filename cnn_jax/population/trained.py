"""`Population` and `train_population`: what was trained together, and training it."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

import numpy as np

from cnn_jax import evaluation, nn
from cnn_jax.classifier import Classified
from cnn_jax.data import Dataset
from cnn_jax.decision import fit_prediction_sets, fit_temperature
from cnn_jax.errors import EvaluationError, RecipeError
from cnn_jax.evaluation import (
    Answers,
    CalibrationPredictions,
    EmbeddingPredictions,
    Estimate,
    Gain,
    MaskPredictions,
    Predictions,
)
from cnn_jax.execution import check_baselines
from cnn_jax.population.execution import carry_out
from cnn_jax.population.folder import PopulationFolder, names_of
from cnn_jax.population.plan import Plan, read_alike
from cnn_jax.population.stacking import Wanted
from cnn_jax.recipe import Recipe
from cnn_jax.recorded import Recorded
from cnn_jax.run import Run, named_overrides
from cnn_jax.run_data import data_again, load_data, located
from cnn_jax.run_folder import begun
from cnn_jax.training.progress import Console, Reporter

if TYPE_CHECKING:
    from cnn_jax.new_images import Images

MOST_MEMBERS = 10_000

A = TypeVar("A", Predictions, MaskPredictions)


class Population(Recorded):
    """A folder of runs that were trained as one population.

    Attributes:
      path: the folder.
      recipe: what the members have in common.
    """

    folder_type = PopulationFolder
    _folder: PopulationFolder

    def __repr__(self) -> str:
        return f"Population({self.shown!r}, {self.status}: {len(self.info['members'])} members)"

    @property
    def strategy(self) -> tuple[str, str]:
        """How it was trained, and why so."""
        strategy = self.info["strategy"]
        return strategy["name"], strategy["reason"]

    @property
    def members(self) -> dict[str, Run]:
        """Name -> run, of those that are finished."""
        runs = {}
        for name in names_of(self.info):
            if self._folder.member(name).info.exists():
                run = Run.load(self.path / name, model=self._model, data=self._data)
                if isinstance(self._data, Dataset) and not read_alike(run.recipe, self.recipe):
                    run = Run.load(self.path / name, model=self._model)  # which reads its own
                if run.status == "finished":
                    runs[name] = run
        return runs

    @property
    def failures(self) -> dict[str, str]:
        """Name -> what was not finite, of the members that failed."""
        return dict(self.info.get("failures", {}))

    @property
    def folds(self) -> int:
        """Folds of the cross-validation, 0 where the members are not tested on several."""
        own = [self.recipe.override(m["overrides"]).data for m in self.info["members"]]
        return own[0].folds if len({data.fold for data in own}) > 1 else 0

    @overload
    def predictions(self, part: Literal["validation"]) -> list[CalibrationPredictions]: ...

    @overload
    def predictions(self, part: str = "test") -> list[Predictions]: ...

    def predictions(self, part: str = "test") -> Sequence[Predictions]:
        """The saved predictions of the finished members; with folds those of all folds together.

        With folds there is one `Predictions` for each seed, of every example once.

        Raises:
          EvaluationError: no member is finished, or a fold is missing.
        """
        return self._saved(part, lambda run: run.predictions(part), evaluation.out_of_fold)

    def masks(self, part: str = "test") -> list[MaskPredictions]:
        """`predictions` of runs that segment: the saved masks of the finished members.

        Raises:
          EvaluationError: no member is finished, or a fold is missing.
          RunError: the members classify.
        """
        return self._saved(part, lambda run: run.masks(part), evaluation.out_of_fold_masks)

    def embeddings(self, part: str = "test") -> list[EmbeddingPredictions]:
        """The saved embeddings of the finished members, of runs that recognise people never seen.

        Raises:
          EvaluationError: no member is finished.
          RunError: the members do not recognise.
        """
        if not self.members:
            raise EvaluationError(f"no member of {self.shown!r} is finished")
        return [run.embeddings(part) for run in self.members.values()]

    def answers(self, part: str = "test") -> Sequence[Answers]:
        """`masks`, `embeddings` or `predictions`, by what the members do; the same errors."""
        if self.recognises:
            return self.embeddings(part)
        return self.masks(part) if self.regions else self.predictions(part)

    @property
    def recognises(self) -> bool:
        """Whether the members are judged by people never seen."""
        return any(run.recognises for run in self.members.values())

    @property
    def regions(self) -> tuple[str, ...]:
        """What the members' masks show; nothing of members that classify."""
        return next((run.regions for run in self.members.values()), ())

    def _saved(
        self, part: str, of: Callable[[Run], A], together: Callable[[Sequence[A]], A]
    ) -> list[A]:
        """What is saved of each finished member; with folds, of each seed, put together."""
        runs = self.members
        if not runs:
            raise EvaluationError(f"no member of {self.shown!r} is finished")
        if not self.folds or part != "test":
            return [of(run) for run in runs.values()]
        of_seed: dict[int, list[A]] = {}
        for run in runs.values():
            of_seed.setdefault(run.recipe.seed, []).append(of(run))
        whole = [folds for folds in of_seed.values() if len(folds) == self.folds]
        if not whole:
            raise EvaluationError(
                f"{self.shown!r} has no seed whose {self.folds} folds are all there"
            )
        return [together(folds) for folds in whole]

    def figures(self, metric: str | None = None, *, level: float = 0.95) -> dict[str, Estimate]:
        """The mean of a figure of the test part, with each interval that can be had.

        Args:
          metric: of `classification_metrics`, of masks `segmentation_metrics`, or of people never
            seen `recognition_metrics`; None for the first of the task.
          level: confidence level.

        Raises:
          EvaluationError: members differ in more than seed and fold, or as `predictions`.

        Returns:
          `test-set`: of a single run, or of the folds of a single seed; `seed` and `both` of
          several seeds. What each covers is told in `evaluation.seeds`.
        """
        if others := self._settings():
            raise EvaluationError(
                f"the members of {self.shown!r} differ in {', '.join(others)}, not in seed or fold "
                "alone: their mean would say nothing"
            )
        runs = self.answers()
        name = metric or self._first_metric
        if len(runs) > 1:
            return evaluation.mean_figure(runs, name, level=level)
        alone = _metrics(runs[0], level)
        if name not in alone:
            raise EvaluationError(f"no metric {name!r}: choose one of {', '.join(alone)}")
        return {"test-set": alone[name]}

    @property
    def _first_metric(self) -> str:
        """What the task reports first."""
        return next(iter(next(iter(self.members.values())).metrics["test"]))

    def ensemble(self, part: str = "test", *, calibrated: bool = False) -> Predictions:
        """The finished members as one deep ensemble; see `evaluation.ensemble`.

        Args:
          part: whose predictions.
          calibrated: whether divided by `temperature`.

        Raises:
          EvaluationError: fewer than two members, or folds, which have other test parts each.
        """
        together = evaluation.ensemble(self._alike(part))
        temperature = self.temperature if calibrated else 1.0
        return dataclasses.replace(together, logits=together.logits / np.float32(temperature))

    @functools.cached_property
    def temperature(self) -> float:
        """What divides the ensemble's logits, fitted on its validation predictions."""
        return fit_temperature(evaluation.ensemble(self._alike("validation"))).value

    def gains(self, *, calibrated: bool = True) -> dict[str, Gain]:
        """Each figure of the ensemble on test beside that of its members; see `ensemble_gain`.

        Args:
          calibrated: whether each member's logits, and the ensemble's, are divided by a
            temperature of its own first.
        """
        members, together = self._alike("test"), None
        if calibrated:
            together = self.ensemble(calibrated=True)
            scales = [np.float32(run.temperature) for run in self.members.values()]
            members = [
                dataclasses.replace(run, logits=run.logits / scale)
                for run, scale in zip(members, scales, strict=True)
            ]
        return {
            name: evaluation.ensemble_gain(members, name, together=together)
            for name in evaluation.metric_names(members[0])
        }

    def cross_validated(self) -> dict[str, Estimate]:
        """Every figure of all out-of-fold predictions or, without folds, of the test part.

        Of several seeds the mean, with an interval over seeds and test sets.
        """
        runs = self.answers()
        return evaluation.mean_figures(runs) if len(runs) > 1 else _metrics(runs[0])

    def log_use(self, command: str) -> None:
        """Write down, in each member, that its test predictions were looked at."""
        for run in self.members.values():
            run.log_use("test", len(run.ids("test")), command)

    def disagreement(self) -> evaluation.Disagreement:
        """Where the members differ on the test part, by example; see `evaluation.disagreement`."""
        return evaluation.disagreement(self._alike("test"))

    def predict(self, images: Images, *, coverage: float | None = None) -> Classified:
        """Calibrated class probabilities of new images, by all finished members together.

        Arguments and errors as of `Run.predict`; and `EvaluationError` as `ensemble`.
        """
        sets = None
        if coverage is not None:
            sets = fit_prediction_sets(
                evaluation.ensemble(self._alike("validation")), coverage=coverage
            )
        temperature = self.temperature  # raises what stands against an ensemble
        classifiers = [run.classifier for run in self.members.values()]
        found = [classifier.logits(images) for classifier in classifiers]
        first = classifiers[0]
        logits = evaluation.mean_logits([logits for _, logits in found], first.kind)
        answers = evaluation.log_probabilities(logits / temperature, first.kind)
        classified = Classified(found[0][0], first.classes, answers, first.kind)
        return classified if sets is None else classified.with_sets(sets, temperature)

    @overload
    def _alike(self, part: Literal["validation"]) -> list[CalibrationPredictions]: ...

    @overload
    def _alike(self, part: str) -> list[Predictions]: ...

    def _alike(self, part: str) -> Sequence[Predictions]:
        """Predictions of two or more members for the same examples."""
        if self.folds:
            raise EvaluationError(
                f"the folds of {self.shown!r} have other examples each: they are no ensemble; take "
                "one of its runs"
            )
        return self.predictions(part)

    def _settings(self) -> list[str]:
        """The fields other than seed and fold in which members differ."""
        named = {name for member in self.info["members"] for name in member["overrides"]}
        return sorted(named - {"seed", "data.fold", "data.folds"})

    def summary(self) -> str:
        """The mean with its interval, a line for each kind of interval."""
        runs = self.members
        if not runs:
            return f"no member of {self.shown!r} is finished"
        if others := self._settings():
            return f"{len(runs)} members that differ in {', '.join(others)}: see each of them"
        name = self._first_metric
        part = "out-of-fold" if self.folds else "test"
        return "\n".join(
            f"{part} {name.replace('_', ' ')} {estimate} (over {evaluation.COVERS[covers]})"
            for covers, estimate in self.figures(name).items()
        )

    def resume(
        self, *, reporter: Reporter | None = None, command: str = "Population.resume"
    ) -> Population:
        """Go on where training stopped; members that are finished stay as they are.

        Raises:
          RunError: another process trains in the folder, or the data have changed.
          CheckpointError: the checkpoints are of another model.
        """
        with self._folder.lock():
            if self.status != "finished":
                recipe, data = data_again(self.recipe, self._data)
                plan = Plan.of(recipe, self.info["members"], data, self._model)
                plan.check(self.info["data"])
                self._carry_out(plan, reporter, command)
        return self

    def _carry_out(self, plan: Plan, reporter: Reporter | None, command: str) -> None:
        with self._advised():
            carry_out(self._folder, plan, reporter or Console(self.recipe.train.epochs), command)


def _metrics(answers: Answers, level: float = 0.95) -> dict[str, Estimate]:
    """Every figure of one run, or of all folds together."""
    if isinstance(answers, EmbeddingPredictions):
        return evaluation.recognition_metrics(answers, level=level)
    if isinstance(answers, MaskPredictions):
        return evaluation.segmentation_metrics(answers, level=level)
    return evaluation.classification_metrics(answers, level=level)


def train_population(
    recipe: Recipe | str | os.PathLike[str] | None = None,
    *,
    seeds: int = 1,
    folds: int = 0,
    members: Mapping[str, Mapping[str, Any]] | None = None,
    strategy: Wanted = "auto",
    model: nn.Module | str | None = None,
    data: Dataset | str | None = None,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    baselines: bool = False,
    reporter: Reporter | None = None,
    command: str = "cnn_jax.train_population",
    **overrides: Any,
) -> Population:
    """Train several runs of one recipe, and write a folder that holds a run folder for each.

    Args:
      recipe, model, data, out, overwrite, reporter, command, **overrides: as of `train`.
      seeds: so many seeds, from the recipe's own on.
      folds: also a cross-validation with so many folds, for each seed; see `data.fold`.
      members: name -> what it changes in the recipe, in place of seeds and folds.
      strategy: how they are trained. `loop`: one after another, each bit for bit as a run of
        its own. `vmap`: all at once in one program; `map`: in turns within one program; both
        equal the runs of their own to rounding after a step, and in distribution after many.
        `auto` measures a few steps of each and takes the fastest that fits into memory.
      baselines: also evaluate pixel 1-nearest neighbour and logistic regression; of masks
        Otsu's threshold, once.

    Raises:
      CnnJaxError: whatever is wrong, in one line, before any work begins.
    """
    resolved, own_model = named_overrides(recipe, model, data, overrides)
    listed = members_of(resolved, seeds, folds) if members is None else dict(members)
    if members is not None and (seeds != 1 or folds):
        raise RecipeError("give either members, or seeds and folds")
    if not 1 <= len(listed) <= MOST_MEMBERS:
        raise RecipeError(
            f"a population has between 1 and {MOST_MEMBERS:,} members, not {len(listed):,}"
        )
    if folds:
        resolved = resolved.override({"data.folds": folds})
    resolved = located(resolved)
    described = [{"name": name, "overrides": dict(own)} for name, own in listed.items()]
    loaded = data if isinstance(data, Dataset) else load_data(resolved)
    plan = Plan.of(resolved, described, loaded, own_model)
    plan.check_strategy(strategy)
    if baselines:
        check_baselines(plan.dataset)
    if resolved.train.tensorboard:
        raise RecipeError("train.tensorboard is for single runs: leave it out of a population")
    name = f"{plan.dataset.name}-{resolved.model.name.removeprefix('custom:')}"
    folder = PopulationFolder.create(out, name, overwrite=overwrite)
    with folder.lock():
        folder.write_recipe(resolved)
        folder.write_info(
            {
                **begun(resolved, command),
                "wants_baselines": baselines,
                "wanted": strategy,
                "members": described,
                "data": plan.identity(),
            }
        )
        population = Population(folder, model=own_model, data=plan.loaded)
        population._carry_out(plan, reporter, command)
    return population


def members_of(recipe: Recipe, seeds: int, folds: int) -> dict[str, dict[str, Any]]:
    """Name -> changes in the recipe, of each seed and fold.

    Raises:
      RecipeError: a number that makes no sense.
    """
    if seeds < 1:
        raise RecipeError(f"a population needs 1 seed or more, not {seeds}")
    if folds and not 2 <= folds <= 1000:
        raise RecipeError(f"a cross-validation needs between 2 and 1000 folds, not {folds}")
    if seeds * max(folds, 1) > MOST_MEMBERS:
        raise RecipeError(
            f"{seeds:,} seeds of {max(folds, 1):,} folds are {seeds * max(folds, 1):,} members: "
            f"at most {MOST_MEMBERS:,}"
        )
    listed: dict[str, dict[str, Any]] = {}
    for seed in range(recipe.seed, recipe.seed + seeds):
        for fold in range(1, folds + 1) or [0]:
            words = [f"fold-{fold}"] * (folds > 0) + [f"seed-{seed}"] * (seeds > 1 or not folds)
            own = {"seed": seed, **({"data.fold": fold} if folds else {})}
            listed["-".join(words)] = own
    return listed
