"""Trainings that an experiment keeps: begun once, gone on with where interrupted, not repeated."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from cnn_jax import Run, nn, train, train_population
from cnn_jax.data import Dataset
from cnn_jax.errors import CnnJaxError
from cnn_jax.population import Population
from cnn_jax.recipe import Recipe
from experiments.results import ResultsError

Trained = TypeVar("Trained", Run, Population)


def kept_run(recipe: Recipe, dataset: Dataset, folder: Path, *, baselines: bool = False) -> Run:
    """The finished run in a folder, or a new one there.

    Args:
      recipe: what is asked for, also of a run that is there.
      dataset: what is learned.
      folder: of the run.
      baselines: see `cnn_jax.train`; of a new run.

    Raises:
      ResultsError: what lies there was trained otherwise or on other data, or a signal stopped
        the training.
    """
    if not _begun(folder, "run.json"):
        return _ended(train(recipe, data=dataset, out=folder, baselines=baselines))
    run = Run.load(folder, data=dataset)
    _check_alike(run.recipe, recipe, folder)
    _check_data(run, folder)
    return _ended(run.resume())


def kept_population(
    recipe: Recipe,
    dataset: Dataset,
    folder: Path,
    members: Mapping[str, Mapping[str, Any]],
    *,
    model: nn.Module | None = None,
    may_fail: bool = False,
    **settings: Any,
) -> Population:
    """The finished population in a folder, or a new one there.

    Args:
      recipe, dataset, folder: as `kept_run`.
      members: name -> what it changes in the recipe, also of a population that is there.
      model: of one's own, or None for that of the recipe.
      may_fail: whether members may be missing whose loss was not finite.
      **settings: of `cnn_jax.train_population`; of a new population.

    Raises:
      ResultsError: as `kept_run`; a member that failed.
    """
    if not _begun(folder, "population.json"):
        population = train_population(
            recipe, model=model, data=dataset, members=members, out=folder, **settings
        )
        return _whole(_ended(population), may_fail)
    population = Population.load(folder, model=model, data=dataset)
    named = {} if model is None else {"model.name": f"custom:{type(model).__name__}"}
    _check_alike(population.recipe, recipe.override(named), folder)
    there = {one["name"]: one["overrides"] for one in population.info["members"]}
    if there != {name: dict(own) for name, own in members.items()}:
        raise ResultsError(
            f"'{folder}' keeps {len(there)} members by other seeds or settings than the "
            f"{len(members)} that are asked for: give another folder"
        )
    for run in list(population.members.values())[:1]:  # they learn from one data set
        _check_data(run, folder)
    return _whole(_ended(population.resume()), may_fail)


def seeds_from_zero(number: int) -> dict[str, dict[str, Any]]:
    """Members that differ in their seed alone."""
    return {f"seed-{seed}": {"seed": seed} for seed in range(number)}


def _begun(folder: Path, name: str) -> bool:
    """Whether a training is in a folder."""
    if (folder / name).exists():
        return True
    if folder.is_dir() and any(folder.iterdir()):
        raise ResultsError(f"'{folder}' holds no {name}: remove it, or give another folder")
    return False


def _ended(trained: Trained) -> Trained:
    """Raise where a signal has stopped the training, of which the rest is not to be measured."""
    if trained.status == "interrupted":
        raise ResultsError(f"'{trained.path}' was interrupted: the same command goes on with it")
    return trained


def _whole(population: Population, may_fail: bool) -> Population:
    """Raise where seeds are missing, which would be paired with others."""
    if population.failures and not may_fail:
        name, why = next(iter(population.failures.items()))
        raise ResultsError(f"'{population.path}': {name} failed: {why}")
    return population


def _check_data(run: Run, folder: Path) -> None:
    try:
        run.dataset  # noqa: B018  # which refuses other data
    except CnnJaxError as error:
        raise ResultsError(f"'{folder}': {error}") from error


def _check_alike(recipe: Recipe, wanted: Recipe, folder: Path) -> None:
    """Where the data lie may differ."""
    elsewhere = {"data.source": wanted.data.source, "data.root": wanted.data.root}
    recipe = recipe.override(elsewhere)
    parts = ("seed", "data", "model", "augment", "loss", "optimizer", "schedule", "train")
    for part in parts:
        if getattr(recipe, part) != getattr(wanted, part):
            raise ResultsError(
                f"'{folder}' keeps a training with another {part}: give another folder"
            )
