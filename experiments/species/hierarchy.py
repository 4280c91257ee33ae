"""CIFAR-10 as a tree: do networks learn that a dog is more like a cat than like a lorry?

    python -m experiments.species.hierarchy --data-dir DIR --out FOLDER [--seeds 3]

Six classes are animals, of three kinds (mammal, bird, amphibian), and four are vehicles
(`cifar10_kinds.csv`). Networks learn 200 images of each class, with and without the cross-entropy
of kinds and branches in the loss (`loss.hierarchy`), from the same seeds. Figures are of the
official test part: accuracy at each level, the mean height of the lowest ancestor that the answer
and the truth have in common (0 right, 1 of one kind, 2 of one branch, 3), and that of the mistakes
alone. FOLDER keeps a run for each seed and loss; those that are there are not trained again.
Appends to results.csv beside this file.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cnn_jax import Run, data
from cnn_jax.data import Dataset
from cnn_jax.evaluation import Estimate, Hierarchy, Predictions, hierarchy_metrics, over_seeds
from cnn_jax.recipe import resolve
from cnn_jax.training.baselines import logistic_regression, nearest_neighbour
from experiments.kept import kept_run
from experiments.results import Row
from experiments.rows import command_of_seeds, reported

DATA, PATH = "cifar10", Path(__file__).with_name("results.csv")
TREE = Path(__file__).with_name("cifar10_kinds.csv")
SHOTS = 200
LEARNING: Mapping[str, Any] = {"data.shots": SHOTS, "train.epochs": 30, "train.select": "last"}
LOSSES: Mapping[str, Mapping[str, Any]] = {
    "classes alone": {},
    "classes, kinds and branches": {"loss.hierarchy": ("kind", "branch")},
}
COMMAND = (
    'python -m experiments.species.hierarchy --data-dir "$CNN_JAX_DATA" --out FOLDER --seeds {}'
)


def load(folder: str) -> tuple[Dataset, Hierarchy]:
    """The images, with their kinds and branches as further targets."""
    plain = data.load(DATA, data_dir=folder)
    tree = Hierarchy.read(TREE, plain.classes["label"])
    return data.group_classes(plain, tree.levels, tree.ancestors), tree


def trained(dataset: Dataset, out: Path, seed: int, changes: Mapping[str, Any]) -> Run:
    """The run in a folder, or a new one.

    Raises:
      ResultsError: what lies there was trained otherwise.
    """
    return kept_run(resolve(DATA, {**LEARNING, **changes, "seed": seed}), dataset, out)


def rows(folder: str, out: Path, seeds: int) -> Iterator[Row]:
    """Each figure as a row."""
    dataset, tree = load(folder)

    def row(experiment: str, metric: str, figure: Estimate, seed: int) -> Row:
        fixed = {"command": COMMAND.format(seeds), "seed": str(seed)}
        split = f"{SHOTS} of each class, test"
        return reported(figure, dataset, experiment, metric, split, **fixed)

    fewer = data.few_shots(dataset, SHOTS, seed=0)
    for baseline in (nearest_neighbour(fewer), logistic_regression(fewer)):
        # Cosines of the nearest are no probabilities to be summed: all weight to the highest.
        sharp = 1e-6 if baseline.name.startswith("nearest") else 1.0
        for metric, figure in measured(baseline.predictions["test"], tree, sharp).items():
            yield row(f"{baseline.name} on pixels", metric, figure, 0)
    for seed in range(seeds):
        found = {}
        for number, (name, changes) in enumerate(LOSSES.items()):
            run = trained(dataset, out / f"{number}-{seed}", seed, changes)
            found[name] = measured(run.predictions("test"), tree, run.temperature)
            for metric, figure in found[name].items():
                yield row(name, metric, figure, seed)
        plain, grouped = found.values()
        for metric in (name for name in grouped if name in plain):
            figure = grouped[metric]
            difference = figure.value - plain[metric].value
            one = over_seeds([difference], figure.n, percent=figure.percent, difference=True)
            yield row(" minus ".join(reversed(found)), metric, one, seed)


def measured(
    predictions: Predictions, tree: Hierarchy, temperature: float = 1.0
) -> dict[str, Estimate]:
    """The figures that there are: without mistakes there is no height of mistakes."""
    found = hierarchy_metrics(predictions, tree, temperature=temperature)
    return {metric: figure for metric, figure in found.items() if math.isfinite(figure.value)}


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    return command_of_seeds(__doc__, "hierarchy", PATH, rows, arguments, seeds=3)


if __name__ == "__main__":
    sys.exit(main())
