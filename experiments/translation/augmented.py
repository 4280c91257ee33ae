"""MNIST: what shifts and turns do to accuracy, with and without augmentation.

    python -m experiments.translation.augmented --data-dir DIR --out FOLDER [--seeds 5]

The small network of `experiments.translation.measure`, with zeros at the border and strides, learns
the same 200 digits of each class as they are, or shifted by up to 4 pixels and turned by up to 45
degrees at random; there are several seeds of each, trained as populations. The first 1,000 images
of the official test part are then shown as they are; shifted by 2, 4 and 6 pixels, in each of the
eight directions; and turned by 15, 30 and 45 degrees either way (what enters is black). The same
images are shown to the two baselines on pixels, which learn digits as they are. Differences are
paired by seed. FOLDER keeps the populations. Appends to results.csv beside this file.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cnn_jax.data import Dataset, Split
from cnn_jax.evaluation import Estimate, Predictions, bootstrap, over_seeds
from cnn_jax.evaluation.weighted import mean_statistic
from cnn_jax.principles import shift, turn
from cnn_jax.recipe import Recipe
from cnn_jax.training.baselines import Baseline, logistic_regression, nearest_neighbour
from experiments.kept import kept_population, seeds_from_zero
from experiments.results import Row
from experiments.rows import command_of_seeds, reported
from experiments.translation import measure

PATH = Path(__file__).with_name("results.csv")
IMAGES = 1_000
NETWORK: Mapping[str, Any] = {"widths": (8, 16, 32), "units": 1}
PLAIN: Mapping[str, Any] = {"model.options": NETWORK}
METHODS: Mapping[str, Mapping[str, Any]] = {
    "learned as they are": PLAIN,
    "learned with shifts and turns": {
        **PLAIN,
        "augment.translate": 4,
        "augment.rotate": 45.0,
        "augment.padding": "zero",
    },
}
DIRECTIONS = [d for d in itertools.product((-1, 0, 1), repeat=2) if d != (0, 0)]
COMMAND = (
    'python -m experiments.translation.augmented --data-dir "$CNN_JAX_DATA" --out FOLDER --seeds {}'
)


def shown(images: np.ndarray) -> dict[str, np.ndarray]:
    """Name of the figure -> the images as they are shown for it, one way after the other."""
    found = {"accuracy": images}
    for pixels in (2, 4, 6):
        moved = [shift(images, (pixels * y, pixels * x), "zero") for y, x in DIRECTIONS]
        found[f"shifted {pixels} px accuracy"] = np.concatenate(moved)
    for degrees in (15, 30, 45):
        turned = [turn(images, sign * degrees) for sign in (-1, 1)]
        found[f"turned {degrees}° accuracy"] = np.concatenate(turned)
    return found


def of_pixels(
    baseline: Callable[[Dataset], Baseline], dataset: Dataset, images: np.ndarray, labels: Any
) -> Predictions:
    """What a baseline answers to images, having learned the train part."""
    ids = np.array([f"shown/{n:06}" for n in range(len(images))])
    test = Split(images, {"label": labels}, ids)
    splits = {**dataset.splits, "test": test}
    return baseline(dataset.replace(splits=splits)).predictions["test"]


def rows(folder: str, out: Path, seeds: int) -> Iterator[Row]:
    """Each figure as a row."""
    dataset = measure.load(folder)
    test = dataset.splits["test"]
    chosen = np.arange(min(IMAGES, len(test)))
    images, labels = test.read_images(chosen), test.targets["label"][chosen]
    each = shown(images)

    split = f"{measure.SHOTS} of each class, {len(chosen)} test images shifted and turned"

    def row(experiment: str, metric: str, figure: Estimate, seed: str = "") -> Row:
        fixed = {"command": COMMAND.format(seeds), "seed": seed}
        return reported(figure, dataset, experiment, metric, split, **fixed)

    for baseline in (nearest_neighbour, logistic_regression):
        for metric, some in each.items():
            repeated = np.tile(labels, len(some) // len(labels))
            answers = of_pixels(baseline, dataset, some, repeated)
            right = answers.logits.argmax(axis=1) == repeated
            name = f"{baseline.__name__.replace('_', ' ')} on pixels"
            yield row(name, metric, _share(right, len(labels)))
    found: dict[str, dict[str, list[float]]] = {}
    for name, overrides in METHODS.items():
        recipe = Recipe().override({**measure.LEARNING, **overrides})
        place = out / name.replace(" ", "-")
        population = kept_population(recipe, dataset, place, seeds_from_zero(seeds))
        found[name] = {}
        for metric, some in each.items():
            repeated = np.tile(labels, len(some) // len(labels))
            values = [
                float((run.predict(some).probabilities.argmax(axis=1) == repeated).mean())
                for run in population.members.values()
            ]
            found[name][metric] = values
            figure = over_seeds(values, len(labels), percent=True)
            yield row(name, metric, figure, f"0..{seeds - 1}")
    plain, augmented = METHODS
    for metric, values in found[augmented].items():
        gains = np.subtract(values, found[plain][metric])
        figure = over_seeds(gains, len(labels), percent=True, difference=True)
        yield row(f"{augmented} minus {plain}", metric, figure, f"0..{seeds - 1}")


def _share(right: np.ndarray, images: int) -> Estimate:
    """The share that is right, of all ways an image is shown, with an interval over images."""
    groups = np.tile(np.arange(images), len(right) // images)
    statistic = mean_statistic(right.astype(np.float64))
    found = bootstrap({"accuracy": statistic}, len(right), groups)["accuracy"]
    return replace(found, n=images, percent=True)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    return command_of_seeds(__doc__, "augmented", PATH, rows, arguments, seeds=5)


if __name__ == "__main__":
    sys.exit(main())
