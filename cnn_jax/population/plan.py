"""What the members of a population are, and whether one program can train them all."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cnn_jax import nn
from cnn_jax.assembly import Assembly, assemble_run
from cnn_jax.data import Dataset
from cnn_jax.errors import RecipeError, RunError
from cnn_jax.file_names import safe_names
from cnn_jax.programs import program_of
from cnn_jax.recipe import Recipe
from cnn_jax.run_data import load_data, resolve_data
from cnn_jax.training.state import Batch
from cnn_jax.training.step import TrainStep
from cnn_jax.training.task import innermost

# What else lies in the folder of a population.
_TAKEN = (
    *("checkpoints", "checkpoints-damaged", "lock", "population.json", "recipe.toml"),
    *("metrics.csv", "timings.csv", "report.html"),
)


@dataclass(frozen=True, eq=False)
class Plan:
    """The members, each with its assembly; those with the same program and data share theirs.

    Attributes:
      names: of the members, in order.
      recipes: of each, resolved.
      assemblies: of each.
      loaded: the data as they were read, before folds were made.
    """

    names: tuple[str, ...]
    recipes: tuple[Recipe, ...]
    assemblies: tuple[Assembly, ...]
    loaded: Dataset

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        members: Sequence[Mapping[str, Any]],
        loaded: Dataset,
        model: nn.Module | None,
        built: dict[Any, Assembly] | None = None,
    ) -> Plan:
        """Resolve recipes and data, and build what each member is made of.

        Args:
          recipe: what they have in common.
          members: `name` and `overrides` of each.
          loaded: the data set, all three parts.
          model: a module of the user's own.
          built: what earlier plans of the same data built, which is used again and added to.

        Raises:
          RecipeError: a name that is no folder's, or a field that is none.
          CnnJaxError: as `assemble_run` and `resolve_data`.
        """
        names = tuple(str(member["name"]) for member in members)
        for name, safe in zip(names, safe_names(names, _TAKEN), strict=True):
            if name != safe:
                raise RecipeError(f"a member cannot be called {name!r}; {safe!r} would do")
        recipes = [recipe.override(member["overrides"]) for member in members]
        built = {} if built is None else built
        datasets = {key[0]: assembly.dataset for key, assembly in built.items()}
        used = set()
        assemblies = []
        for own in recipes:
            if own.data not in datasets:
                read = loaded if read_alike(own, recipe) else load_data(own)
                datasets[own.data] = resolve_data(own, read)
            key = (own.data, program_of(own).digest())
            used.add(key)
            if key not in built:
                built[key] = assemble_run(own, datasets[own.data], model)
            assemblies.append(built[key].of(own))
        for key in built.keys() - used:
            del built[key]  # each holds examples of its own
        return cls(names, tuple(recipes), tuple(assemblies), loaded)

    def __len__(self) -> int:
        return len(self.names)

    def take(self, numbers: Sequence[int]) -> Plan:
        """The members with these numbers."""
        return Plan(
            tuple(self.names[n] for n in numbers),
            tuple(self.recipes[n] for n in numbers),
            tuple(self.assemblies[n] for n in numbers),
            self.loaded,
        )

    @property
    def dataset(self) -> Dataset:
        """Of the first member."""
        return self.assemblies[0].dataset

    @property
    def same_data(self) -> bool:
        """Whether all members train on the same examples."""
        return len({id(assembly.dataset) for assembly in self.assemblies}) == 1

    def identity(self) -> dict[str, Any]:
        """Which data the members are trained on: name, and the digest of each."""
        digests = [assembly.dataset.digest for assembly in self.assemblies]
        return {"name": self.dataset.name, "digests": digests}

    def check(self, identity: Mapping[str, Any]) -> None:
        """Raise `RunError` if the data are not those the population began with."""
        if self.identity()["digests"] != list(identity["digests"]):
            raise RunError(
                f"the data set {self.dataset.name!r} has changed since this population began: "
                "nothing would compare"
            )

    def check_strategy(self, strategy: str) -> None:
        """Raise `RecipeError` if members cannot be trained as is wanted."""
        if strategy not in ("auto", "loop", "vmap", "map"):
            raise RecipeError(f"the strategy must be auto, loop, vmap or map, not {strategy!r}")
        obstacle = self.obstacle()
        if strategy in ("vmap", "map") and obstacle:
            raise RecipeError(f"the strategy cannot be {strategy}: {obstacle}; take loop or auto")

    def obstacle(self) -> str | None:
        """Why one program cannot train all members, or None."""
        feeds = [assembly.feeds["train"] for assembly in self.assemblies]
        steps = sorted({feed.steps for feed in feeds})
        if len(self) == 1:
            return "there is one member"
        if len({program_of(recipe).digest() for recipe in self.recipes}) > 1:
            return "members differ in more than seed, fold, split_seed and scalars"
        if any(feed.streamed for feed in feeds):
            return "the images are read while training"
        if len(steps) > 1 or len({feed.batch_size for feed in feeds}) > 1:
            return f"training parts differ in size, {steps[0]} to {steps[-1]} batches an epoch"
        return None

    def step(self) -> TrainStep:
        """The step of all members."""
        padded = any(assembly.feeds["train"].padded for assembly in self.assemblies)
        return dataclasses.replace(self.assemblies[0].step, padded=padded)

    def own(self) -> dict[str, np.ndarray]:
        """What of the step is each member's own; see `training.population.step_of`."""
        if self.same_data:
            return {}
        own = {
            "mean": np.array([a.preprocess.mean for a in self.assemblies], np.float32),
            "std": np.array([a.preprocess.std for a in self.assemblies], np.float32),
        }
        for name in ("class_weights", "log_priors"):
            values: list[Any] = [getattr(innermost(a.task), name, None) for a in self.assemblies]
            if values[0] is not None:
                own[name] = np.array(values, np.float32)
        return own

    def resident(self) -> tuple[Batch, list[np.ndarray] | None]:
        """The training examples of all members on every device, and where each one's lie."""
        first = self.assemblies[0]
        if self.same_data:
            return first.feeds["train"].resident, None
        # No part of one member need hold all that another one learns from.
        place: dict[str, int] = {}
        parts, rows = [], []
        for assembly in self.assemblies:
            train = assembly.dataset.splits["train"]
            new = [n for n, i in enumerate(train.ids.tolist()) if i not in place]
            if new:
                parts.append(train.take(new))
                place |= {i: len(place) + n for n, i in enumerate(parts[-1].ids.tolist())}
            rows.append(np.array([place[i] for i in train.ids.tolist()]))
        images = [split.images for split in parts]
        arrays: dict[str, Any] = {"image": np.concatenate(images)}  # type: ignore[arg-type]
        for name in parts[0].targets:
            arrays[name] = np.concatenate([split.targets[name] for split in parts])
        masks = [split.masks for split in parts if split.masks is not None]
        if masks:
            arrays["mask"] = np.concatenate(masks)
        return first.placement.replicate(arrays), rows


def read_alike(own: Recipe, common: Recipe) -> bool:
    """Whether two recipes read the same data, whatever they make of it then.

    Raises:
      RecipeError: they do not, and the data are arrays, which are not read.
    """
    same: dict[str, Any] = {"folds": 0, "fold": 1, "duplicates": "stop"}
    same |= {"unseen_identities": 0, "identities": 0, "shots": 0}
    custom = common.data.source.startswith("custom:")
    # What follows makes the parts, or the shots, of data that were read; it reads nothing else.
    if own.data.unseen_identities or (custom and own.data.folds):
        same |= {"validation": 0.1, "split_seed": 0}
    elif custom and own.data.shots:
        same |= {"split_seed": 0}
    alike = dataclasses.replace(own.data, **same) == dataclasses.replace(common.data, **same)
    if custom and not alike:
        raise RecipeError(
            "members cannot differ in how data are read, and these are arrays of your own"
        )
    return alike
