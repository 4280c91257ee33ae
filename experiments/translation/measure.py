"""MNIST: what a circular shift does to the answers of three ways to halve an image.

    python -m experiments.translation.measure --data-dir DIR --out FOLDER [--seeds 10]

A small network with circular padding learns 200 digits of each class, without augmentation. Its
stages halve the image by strided convolutions, by blur pooling or by adaptive polyphase sampling;
parameters are as many. Of each there are several seeds, trained as a population. Accuracy is that
of the official test part. Consistency is how often two circular shifts of a test image, by 0 to 7
pixels along each axis, get the same answer (1,000 images, 2 pairs each), once trained and as
initialised. Differences between methods are paired by seed, those to pixels by image, over seeds
and test sets. Equivalence is tested by two one-sided t-tests of the difference in accuracy against
0.5 points either way (Schuirmann 1987): the larger p-value is kept. FOLDER keeps the populations;
those that are there are not trained again. Appends to results.csv beside this file.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from cnn_jax import Run, data, models, nn
from cnn_jax.data import Dataset
from cnn_jax.evaluation import (
    Estimate,
    classification_metrics,
    over_seeds,
    over_seeds_and_test_sets,
)
from cnn_jax.population import Population
from cnn_jax.principles import shift_consistency
from cnn_jax.recipe import Recipe
from cnn_jax.training.baselines import logistic_regression, nearest_neighbour
from experiments.kept import kept_population, seeds_from_zero
from experiments.results import Row
from experiments.rows import command_of_seeds, reported

DATA, PATH = "mnist", Path(__file__).with_name("results.csv")
SHOTS, IMAGES, LARGEST, DRAWS = 200, 1_000, 7, 2
MARGIN = 0.005
NETWORK: Mapping[str, Any] = {"widths": (8, 16, 32), "units": 1, "padding": "circular"}
METHODS = {
    "strided convolutions": "stride",
    "blur pooling": "blur",
    "adaptive polyphase sampling": "polyphase",
}
# Chosen on the validation part, by one run of two of the methods.
LEARNING: Mapping[str, Any] = {
    "model.name": "compact",
    "augment.translate": 0,
    "train.epochs": 20,
    "train.batch_size": 32,
    "optimizer.name": "muon",
    "optimizer.learning_rate": 0.03,
    "optimizer.other_learning_rate": 0.05,
}
COMMAND = (
    'python -m experiments.translation.measure --data-dir "$CNN_JAX_DATA" --out FOLDER --seeds {}'
)


def load(folder: str, shots: int = SHOTS) -> Dataset:
    """The digits, of which few are learned."""
    return data.few_shots(data.load(DATA, data_dir=folder), shots, seed=0)


def rows(folder: str, out: Path, seeds: int) -> Iterator[Row]:
    """Each figure as a row."""
    split = f"{SHOTS} of each class, test"
    yield from compared(load(folder), out, seeds, METHODS, {}, split, COMMAND)


def compared(
    dataset: Dataset,
    out: Path,
    seeds: int,
    methods: Mapping[str, str],
    overrides: Mapping[str, Any],
    split: str,
    command: str,
) -> Iterator[Row]:
    """The figures of ways to halve an image, the first of which the others are compared with.

    Args:
      dataset: what is learned, and the test part.
      out: keeps the populations.
      seeds: of each.
      methods: name -> the option `downsample` of the network.
      overrides: of `LEARNING`.
      split: as in `Row`.
      command: as in `Row`, with a place for the seeds.
    """

    def row(experiment: str, metric: str, figure: Estimate) -> Row:
        fixed = {"command": command.format(seeds), "seed": f"0..{seeds - 1}"}
        return reported(figure, dataset, experiment, metric, split, **fixed)

    pixels = {
        f"{baseline.name} on pixels": baseline.predictions["test"]
        for baseline in (nearest_neighbour(dataset), logistic_regression(dataset))
    }
    for name, answers in pixels.items():
        yield row(name, "accuracy", classification_metrics(answers)["accuracy"])
    found: dict[str, dict[str, list[float]]] = {}
    for name, downsample in methods.items():
        network = {"model.options": {**NETWORK, "downsample": downsample}}
        recipe = Recipe().override({**LEARNING, **overrides, **network})
        population = kept_population(recipe, dataset, out / downsample, seeds_from_zero(seeds))
        found[name] = measured(population, dataset)
        for metric, values in found[name].items():
            yield row(
                name, metric, over_seeds(values, images_behind(metric, dataset), percent=True)
            )
        ours = [run.predictions("test") for run in population.members.values()]
        for other, answers in pixels.items():
            gain = over_seeds_and_test_sets(ours, [answers] * len(ours), "accuracy")
            yield row(f"{name} minus {other}", "accuracy", gain)
    plain, *others = methods
    for other in others:
        for metric, values in found[other].items():
            gains = np.subtract(values, found[plain][metric])
            gain = over_seeds(gains, images_behind(metric, dataset), percent=True, difference=True)
            yield row(f"{other} minus {plain}", metric, gain)
            if metric == "accuracy":
                p = equivalence(gains, MARGIN)
                n = len(gains)
                method, nan = "two one-sided t-tests", float("nan")
                of_test = Estimate(p, nan, nan, n, method, n_seeds=n)
                yield row(f"{other} minus {plain}", "p of no equivalence", of_test)


def images_behind(metric: str, dataset: Dataset) -> int:
    """How many test images a figure is of."""
    count = len(dataset.splits["test"])
    return count if metric == "accuracy" else min(IMAGES, count)


def measured(population: Population, dataset: Dataset) -> dict[str, list[float]]:
    """Metric -> a value of each seed."""
    found: dict[str, list[float]] = {"accuracy": [], "consistency": [], "untrained consistency": []}
    images = dataset.splits["test"].read_images(np.arange(images_behind("consistency", dataset)))
    for seed, run in enumerate(population.members.values()):
        accuracy = classification_metrics(run.predictions("test"))["accuracy"]
        found["accuracy"].append(accuracy.value)
        fresh = models.initialize(run.model, jax.random.key(seed), dataset.image_shape)
        logits = functools.partial(_logits, run, run.variables)
        found["consistency"].append(_consistency(logits, images, seed))
        # As initialised one class is nearly always ahead: what is left is what differs.
        logits = functools.partial(_logits, run, fresh)
        usual = logits(images).mean(axis=0)
        differing = functools.partial(_logits, run, fresh, usual=usual)
        found["untrained consistency"].append(_consistency(differing, images, seed))
    return found


def _logits(run: Run, variables: Any, images: np.ndarray, *, usual: Any = 0.0) -> np.ndarray:
    x = run.classifier.preprocess(jnp.asarray(images))
    logits: np.ndarray = np.asarray(_apply(run.model, variables, x)) - usual
    return logits


@functools.partial(jax.jit, static_argnums=0)
def _apply(model: nn.Module, variables: Any, x: jax.Array) -> Any:
    return model.apply(variables, x, train=False)


def _consistency(
    logits: Callable[[np.ndarray], np.ndarray], images: np.ndarray, seed: int
) -> float:
    return shift_consistency(
        logits, images, largest=LARGEST, draws=DRAWS, seed=seed, resamples=2
    ).value


def equivalence(differences: Sequence[float] | np.ndarray, margin: float) -> float:
    """The larger p-value of the two one-sided t-tests against -margin and margin."""
    return float(
        max(
            stats.ttest_1samp(differences, -margin, alternative="greater").pvalue,
            stats.ttest_1samp(differences, margin, alternative="less").pvalue,
        )
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    return command_of_seeds(__doc__, "translation", PATH, rows, arguments, seeds=10)


if __name__ == "__main__":
    sys.exit(main())
