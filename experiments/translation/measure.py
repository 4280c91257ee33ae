"""MNIST: what a circular shift does to the answers of three ways to halve an image.

    python -m experiments.translation.measure --data-dir DIR --out FOLDER [--seeds 10]

A small network with circular padding learns 200 digits of each class, without augmentation. Its
stages halve the image by strided convolutions, by blur pooling or by adaptive polyphase sampling;
parameters are as many. Of each there are several seeds, trained as a population. Accuracy is that
of the official test part. Consistency is how often two circular shifts of a test image, by 0 to 7
pixels along each axis, get the same answer (1,000 images, 2 pairs each), once trained and as
initialised. Differences are paired by seed. Equivalence is tested by two one-sided t-tests of the
difference in accuracy against 0.5 points either way (Schuirmann 1987): the larger p-value is kept.
FOLDER keeps the populations; those that are there are not trained again. Appends to results.csv
beside this file.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from scipy import stats

from cnn_jax import data, models, train_population
from cnn_jax.data import Dataset
from cnn_jax.evaluation import Estimate, classification_metrics, over_seeds
from cnn_jax.population import Population
from cnn_jax.principles import shift_consistency
from cnn_jax.recipe import Recipe
from cnn_jax.training.baselines import logistic_regression, nearest_neighbour
from cnn_jax.training.preprocess import fit_preprocess
from experiments.results import ResultsError, Row
from experiments.rows import append_each, check_alike, here, row_of

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


def load(folder: str) -> Dataset:
    """The digits, of which few are learned."""
    return data.few_shots(data.load(DATA, data_dir=folder), SHOTS, seed=0)


def trained(dataset: Dataset, out: Path, downsample: str, seeds: int) -> Population:
    """The population in a folder, or a new one.

    Raises:
      ResultsError: what lies there was trained otherwise.
    """
    recipe = Recipe().override({**LEARNING, "model.options": {**NETWORK, "downsample": downsample}})
    if not (out / "population.json").exists():
        return train_population(recipe, data=dataset, seeds=seeds, out=out)
    population = Population.load(out, data=dataset)
    check_alike(population.recipe, recipe, out)
    if len(population.members) != seeds:
        raise ResultsError(f"'{out}' keeps {len(population.members)} seeds, not {seeds}")
    return population


def rows(folder: str, out: Path, seeds: int) -> Iterator[Row]:
    """Each figure as a row."""
    dataset = load(folder)

    def row(experiment: str, metric: str, figure: Estimate) -> Row:
        print(f"{experiment} {metric} {figure}", flush=True)
        return row_of(
            figure,
            experiment=experiment,
            metric=metric,
            command=COMMAND.format(seeds),
            data=DATA,
            data_digest=dataset.digest[:16],
            split=f"{SHOTS} of each class, test",
            seed=f"0..{seeds - 1}",
            **here(),
        )

    for baseline in (nearest_neighbour(dataset), logistic_regression(dataset)):
        accuracy = classification_metrics(baseline.predictions["test"])["accuracy"]
        yield row(f"{baseline.name} on pixels", "accuracy", accuracy)
    found: dict[str, dict[str, list[float]]] = {}
    for name, downsample in METHODS.items():
        population = trained(dataset, out / downsample, downsample, seeds)
        found[name] = measured(population, dataset, downsample)
        for metric, values in found[name].items():
            yield row(name, metric, over_seeds(values, _behind(metric, dataset), percent=True))
    plain, *others = METHODS
    for other in others:
        for metric, values in found[other].items():
            gains = np.subtract(values, found[plain][metric])
            gain = over_seeds(gains, _behind(metric, dataset), percent=True)
            yield row(f"{other} minus {plain}", metric, gain)
            if metric == "accuracy":
                p = equivalence(gains, MARGIN)
                n = len(gains)
                method, nan = "two one-sided t-tests", float("nan")
                of_test = Estimate(p, nan, nan, n, method, n_seeds=n)
                yield row(f"{other} minus {plain}", "p of no equivalence", of_test)


def _behind(metric: str, dataset: Dataset) -> int:
    """Test images behind a figure."""
    count = len(dataset.splits["test"])
    return count if metric == "accuracy" else min(IMAGES, count)


def measured(population: Population, dataset: Dataset, downsample: str) -> dict[str, list[float]]:
    """Metric -> a value of each seed."""
    found: dict[str, list[float]] = {"accuracy": [], "consistency": [], "untrained consistency": []}
    members = population.members
    test = dataset.splits["test"]
    images = test.read_images(np.arange(min(IMAGES, len(test))))
    preprocess = fit_preprocess(dataset)
    for seed, run in enumerate(members.values()):
        accuracy = classification_metrics(run.predictions("test"))["accuracy"]
        found["accuracy"].append(accuracy.value)
        model = models.create(
            "compact",
            num_classes=len(dataset.classes["label"]),
            image_size=dataset.image_shape[0],
            downsample=downsample,
            **NETWORK,
        )
        fresh = models.initialize(model, jax.random.key(seed), dataset.image_shape)
        for metric, variables in (("consistency", run.variables), ("untrained consistency", fresh)):
            logits = _predictor(model, variables, preprocess)
            # As initialised one class is nearly always ahead: what is left is what differs.
            usual = logits(images).mean(axis=0) if metric != "consistency" else 0.0
            share = shift_consistency(
                functools.partial(_less, logits, usual),
                images,
                largest=LARGEST,
                draws=DRAWS,
                seed=seed,
                resamples=2,
            )
            found[metric].append(share.value)
    return found


def _less(logits: Callable[[np.ndarray], np.ndarray], usual: Any, images: np.ndarray) -> np.ndarray:
    less: np.ndarray = logits(images) - usual
    return less


def _predictor(model: Any, variables: Any, preprocess: Any) -> Callable[[np.ndarray], np.ndarray]:
    apply = jax.jit(lambda images: model.apply(variables, preprocess(images), train=False))
    return lambda images: np.asarray(apply(images))


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
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args(arguments)
    return append_each(PATH, rows(options.data_dir, options.out, options.seeds), "translation")


if __name__ == "__main__":
    sys.exit(main())
