"""MNIST: what shared weights bring, beside other networks and beside what is no network.

    python -m experiments.sharing.measure --data-dir DIR --out FOLDER [--seeds 5]

Accuracy on the official test part against the number of images of each class that are learned. Each
seed draws its own images, the same for all rivals, and begins the networks anew. These learn alike:
1,000 batches of 50 whatever the number of images, Adam, no augmentation, nothing by which to stop;
the learning rate of each network is the one of four that has the best validation accuracy in a
pilot, with a draw of its own. The penalties of the logistic regression and of the SVM are chosen on
the validation part, too, anew for each draw. Intervals cover seeds and test sets; differences are
paired by test image, not by seed. FOLDER keeps a population for each number of images, network and
seed; those that are there are not trained again. Appends to results.csv beside this file.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cnn_jax import data, nn
from cnn_jax.data import Dataset, Split
from cnn_jax.data.digest import dataset_digest
from cnn_jax.evaluation import (
    Estimate,
    Predictions,
    classification_metrics,
    over_seeds_and_test_sets,
)
from cnn_jax.population import Population
from cnn_jax.recipe import Recipe
from cnn_jax.training.baselines import Baseline, logistic_regression, nearest_neighbour
from experiments.kept import kept_population
from experiments.results import ResultsError, Row
from experiments.rows import command_of_seeds, reported
from experiments.sharing.hog import hog_and_svm
from experiments.sharing.networks import multiply_adds, networks, parameters

DATA, PATH = "mnist", Path(__file__).with_name("results.csv")
SHOTS: Sequence[int] = (10, 100, 1000)
EPOCH = 50_000  # images: of fewer different ones each comes several times
LEARNING: Mapping[str, Any] = {
    "augment.translate": 0,
    "optimizer.name": "adamw",
    "optimizer.weight_decay": 0.0,
    "schedule.warmup_epochs": 0.1,
    "train.epochs": 1,
    "train.batch_size": 50,
}
RATES: Sequence[float] = (0.001, 0.003, 0.01, 0.03)
PILOT_SHOTS, PILOT_SEED = 100, 1_000
TOLERANCE = 1e-3  # nats above the minimum, of the logistic regression
COMMAND = 'python -m experiments.sharing.measure --data-dir "$CNN_JAX_DATA" --out FOLDER --seeds {}'


def load(folder: str) -> Dataset:
    """The digits."""
    return data.load(DATA, data_dir=folder)


def repeated(dataset: Dataset, images: int) -> Dataset:
    """The data set whose train part is repeated, each image as often, to about so many."""
    train = dataset.splits["train"]
    times = max(1, images // len(train))
    rows = np.tile(np.arange(len(train)), times)
    again = np.repeat(np.arange(times), len(train))
    split = Split(
        images=train.read_images(rows),
        targets={name: values[rows] for name, values in train.targets.items()},
        ids=np.array([f"{train.ids[row]} {n}" for row, n in zip(rows, again, strict=True)]),
    )
    splits = {**dataset.splits, "train": split}
    return dataset.replace(splits=splits, digest=dataset_digest(splits))


def trained(
    network: nn.Module,
    dataset: Dataset,
    out: Path,
    members: Mapping[str, Mapping[str, Any]],
    *,
    may_fail: bool = False,
) -> Population:
    """The population in a folder, or a new one.

    Args:
      network: which.
      dataset: whose train part is repeated.
      out: the folder.
      members: name -> seed, learning rate.
      may_fail: see `kept_population`.

    Raises:
      ResultsError: see `kept_population`.
    """
    recipe, long = Recipe().override(LEARNING), repeated(dataset, EPOCH)
    return kept_population(
        recipe, long, out, members, model=network, may_fail=may_fail, strategy="loop"
    )


def rows(folder: str, out: Path, seeds: int) -> Iterator[Row]:
    """Each figure as a row.

    Raises:
      ResultsError: fewer than two seeds.
    """
    if seeds < 2:
        raise ResultsError(f"{seeds} seed has no interval: give 2 or more")
    dataset = load(folder)
    rivals = networks(dataset.image_shape, len(dataset.classes["label"]))

    def row(experiment: str, split: str, metric: str, figure: Estimate, seed: str) -> Row:
        fixed = {"command": COMMAND.format(seeds), "seed": seed}
        return reported(figure, dataset, experiment, metric, split, **fixed)

    for name, network in rivals.items():
        for metric, count in (("parameters", parameters), ("multiply-adds", multiply_adds)):
            nan = float("nan")
            figure = Estimate(count(network, dataset.image_shape), nan, nan, 1, "counted")
            yield row(name, "one image", metric, figure, "")

    rates = {}
    for number, (name, network) in enumerate(rivals.items()):
        found = pilot(network, dataset, out / f"pilot-{number}")
        for rate, accuracy in found.items():
            pilot_split = f"{PILOT_SHOTS} of each class, validation"
            yield row(name, pilot_split, f"rate {rate:g}, accuracy", accuracy, str(PILOT_SEED))
        rates[name] = max(found, key=lambda rate, found=found: found[rate].value)  # type: ignore[misc]

    for shots in SHOTS:
        answers: dict[str, list[Predictions]] = {}
        for seed in range(seeds):
            fewer = data.few_shots(dataset, shots, seed=seed)
            for number, (name, network) in enumerate(rivals.items()):
                own = {"seed": seed, "optimizer.learning_rate": rates[name]}
                place = out / f"{shots}-{number}-{seed}"
                alone = trained(network, fewer, place, {f"seed-{seed}": own})
                answers.setdefault(name, []).extend(alone.predictions("test"))
            for baseline in baselines(fewer):
                print(f"{shots} of each class, seed {seed}: {baseline.name}: {baseline.note}")
                answers.setdefault(baseline.name, []).append(baseline.predictions["test"])
        cnn, *others = answers
        metric, drawn = f"{shots} of each, accuracy", f"0..{seeds - 1}"
        for name, runs in answers.items():
            yield row(name, "few of each class, test", metric, over_both(runs), drawn)
        for name in others:
            figure = over_both(answers[cnn], answers[name])
            yield row(f"{cnn} minus {name}", "few of each class, test", metric, figure, drawn)


def baselines(dataset: Dataset) -> tuple[Baseline, ...]:
    """What is no network."""
    return (
        hog_and_svm(dataset),
        nearest_neighbour(dataset),
        logistic_regression(dataset, tolerance=TOLERANCE),
    )


def over_both(runs: Sequence[Predictions], against: Sequence[Predictions] = ()) -> Estimate:
    """Mean accuracy, or the difference of two, with its interval over seeds and test sets."""
    return over_seeds_and_test_sets(runs, against, "accuracy")


def pilot(network: nn.Module, dataset: Dataset, out: Path) -> dict[float, Estimate]:
    """Learning rate -> validation accuracy, of images and a seed that nothing else has."""
    fewer = data.few_shots(dataset, PILOT_SHOTS, seed=PILOT_SEED)
    members = {
        f"rate-{rate:g}": {"seed": PILOT_SEED, "optimizer.learning_rate": rate} for rate in RATES
    }
    population = trained(network, fewer, out, members, may_fail=True)
    found = {}
    for rate, name in zip(RATES, members, strict=True):
        if run := population.members.get(name):  # none where the loss was not finite
            found[rate] = classification_metrics(run.predictions("validation"))["accuracy"]
    return found


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    return command_of_seeds(__doc__, "sharing", PATH, rows, arguments, seeds=5)


if __name__ == "__main__":
    sys.exit(main())
