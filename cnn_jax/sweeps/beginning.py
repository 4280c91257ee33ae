"""`sweep`: everything that can be said against one is said before any work begins."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, get_args

from cnn_jax import nn
from cnn_jax.assembly import Assembly
from cnn_jax.data import Dataset
from cnn_jax.errors import RecipeError
from cnn_jax.population.plan import Plan
from cnn_jax.population.stacking import Wanted
from cnn_jax.programs import program_of
from cnn_jax.recipe import Recipe
from cnn_jax.run import named_overrides
from cnn_jax.run_data import load_data, located
from cnn_jax.run_folder import begun
from cnn_jax.sweeps.folder import SweepFolder
from cnn_jax.sweeps.space import (
    MOST_POINTS,
    Point,
    Space,
    Values,
    count,
    grid,
    space_of,
)
from cnn_jax.sweeps.study import Search, Study, check_installed
from cnn_jax.sweeps.swept import Sweep
from cnn_jax.sweeps.trials import Metric
from cnn_jax.training.progress import Reporter

# Trials trained together: enough for the strategies to gain, and, where proposals follow
# from results, few enough to follow them often, or where machines share them, to share.
_BATCH = {"grid": 64, "random": 64, "adaptive": 27}
_SHARED_BATCH = 9


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
      storage: URL of a database that several machines share, without a password; None for a
        file in the folder.

    Raises:
      CnnJaxError: whatever is wrong, in one line, before any work begins.
    """
    check_installed()
    if storage is not None and _holds_password(storage):
        raise RecipeError(
            "the URL of --storage holds a password, which would lie in sweep.json for all to read: "
            "leave it out; PostgreSQL takes it from ~/.pgpass or $PGPASSWORD"
        )
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
    programs = _programs(resolved, space)
    built: dict[Any, Assembly] = {}
    for changes in [*programs, {}]:  # each value alone, and what all have in common
        probe = [{"name": "probe", "overrides": changes}]
        plan = Plan.of(resolved, probe, dataset, own_model, built)
    if strategy in ("vmap", "map") and len(programs) > 1:
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
                **begun(resolved, command),
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
            }
        )
        found = Sweep(folder, model=own_model, data=dataset)
        found.carry_out(resolved, dataset, reporter, built)
    return found


def _holds_password(url: str) -> bool:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        read = make_url(url)
    except (ArgumentError, ValueError):  # no URL at all: the study says so
        return False
    return bool(read.password or {"password", "passwd"} & read.query.keys())


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


def _programs(recipe: Recipe, space: Space) -> list[Point]:
    """Of each axis the values that make another program or read other data; the first of all."""
    seen: dict[Any, Point] = {}
    for name, axis in space.items():
        for value in axis.values if isinstance(axis, Values) else (axis.low, axis.high):
            own = recipe.override({name: value})
            seen.setdefault((own.data, program_of(own).digest()), {name: value})
    return list(seen.values())


def _described(axis: Any) -> dict[str, Any]:
    return {"kind": type(axis).__name__, **asdict(axis)}
