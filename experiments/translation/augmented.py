"""MNIST: what shifts and turns do to accuracy, with and without augmentation.

    python -m experiments.translation.augmented --data-dir DIR --out FOLDER [--seeds 5]

The small network of `experiments.translation.measure`, with zeros at the border and strides, learns
the same 200 digits of each class as they are, or shifted by up to 4 pixels and turned by up to 45
degrees at random; there are several seeds of each, trained as populations. The first 1,000 images
of the official test part are then shown as they are; under every shift by up to 7 pixels along
each axis, of which those by the same number of pixels (along the axis with more of them) make one
figure; and turned by 5 to 45 degrees either way (what enters is black). The same images are shown
to the two baselines on pixels, which learn digits as they are. Intervals are over seeds and images,
of pixels over images; differences are paired by image. FOLDER keeps the populations. Appends to
results.csv beside this file.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cnn_jax import Run
from cnn_jax.data import Dataset, Split
from cnn_jax.evaluation import (
    Estimate,
    Predictions,
    classification_metrics,
    over_seeds_and_test_sets,
)
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
LARGEST, DEGREES = 7, range(5, 50, 5)
COMMAND = (
    'python -m experiments.translation.augmented --data-dir "$CNN_JAX_DATA" --out FOLDER --seeds {}'
)


def shown(images: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    """`shifted` and `turned` -> name of the figure -> the images, one way after the other."""
    shifted = {"accuracy": images}
    for pixels in range(1, LARGEST + 1):
        moved = [shift(images, by, "zero") for by in shifts(pixels)]
        shifted[f"{pixels} px accuracy"] = np.concatenate(moved)
    turned = {"accuracy": images}
    for degrees in DEGREES:
        both = [turn(images, sign * degrees) for sign in (-1, 1)]
        turned[f"{degrees}° accuracy"] = np.concatenate(both)
    return {"shifted": shifted, "turned": turned}


def shifts(pixels: int) -> list[tuple[int, int]]:
    """Those down and right by so many pixels along one axis, and no more along the other."""
    steps = range(-pixels, pixels + 1)
    return [(y, x) for y in steps for x in steps if max(abs(y), abs(x)) == pixels]


def answered(
    predict: Callable[[np.ndarray, np.ndarray], np.ndarray],
    figures: Mapping[str, np.ndarray],
    labels: np.ndarray,
    classes: tuple[str, ...],
) -> dict[str, Predictions]:
    """What is answered for each figure; an image is a group, in however many ways it is shown.

    Args:
      predict: from images and their labels to logits.
      figures: name -> images, all of them one way after the other.
      labels: int `[N]`, the classes of the images.
      classes: their names.
    """
    each = {metric: np.tile(labels, len(some) // len(labels)) for metric, some in figures.items()}
    whole = predict(np.concatenate(list(figures.values())), np.concatenate(list(each.values())))
    found, start = {}, 0
    for metric, targets in each.items():
        logits = whole[start : start + len(targets)].astype(np.float32)
        ids = np.array([f"{row:06}" for row in range(len(targets))])
        groups = np.tile(ids[: len(labels)], len(targets) // len(labels))
        found[metric] = Predictions("test", ids, targets, logits, classes, groups=groups)
        start += len(targets)
    return found


def of_pixels(baseline: Callable[[Dataset], Baseline], dataset: Dataset) -> Any:
    """The logits of a baseline that has learned the train part, as `answered` wants them."""

    def predict(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        ids = np.array([f"shown/{n:06}" for n in range(len(images))])
        splits = {**dataset.splits, "test": Split(images, {"label": labels}, ids)}
        return baseline(dataset.replace(splits=splits)).predictions["test"].logits

    return predict


def of_network(run: Run) -> Any:
    """The logits of a network, as `answered` wants them."""

    def predict(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        del labels
        return np.log(np.maximum(run.predict(images).probabilities, 1e-30))

    return predict


def rows(folder: str, out: Path, seeds: int) -> Iterator[Row]:
    """Each figure as a row."""
    dataset = measure.load(folder)
    networks = {}
    for name, overrides in METHODS.items():
        recipe = Recipe().override({**measure.LEARNING, **overrides})
        place = out / name.replace(" ", "-")
        population = kept_population(recipe, dataset, place, seeds_from_zero(seeds))
        networks[name] = list(population.members.values())
    test, classes = dataset.splits["test"], dataset.classes["label"]
    chosen = np.arange(min(IMAGES, len(test)))
    images, labels = test.read_images(chosen), test.targets["label"][chosen]
    for how, figures in shown(images).items():
        pixels = {
            f"{words} on pixels": answered(of_pixels(one, dataset), figures, labels, classes)
            for words, one in (
                ("nearest neighbour", nearest_neighbour),
                ("logistic regression", logistic_regression),
            )
        }
        ours = {
            name: [answered(of_network(run), figures, labels, classes) for run in runs]
            for name, runs in networks.items()
        }
        split = f"{measure.SHOTS} of each class, {len(chosen)} test images {how}"
        for experiment, metric, figure in compared(pixels, ours):
            figure = replace(figure, n=len(chosen))  # images, in however many ways each is shown
            fixed = {"command": COMMAND.format(seeds), "seed": f"0..{seeds - 1}"}
            yield reported(figure, dataset, experiment, metric, split, **fixed)


def compared(
    pixels: Mapping[str, Mapping[str, Predictions]],
    ours: Mapping[str, list[dict[str, Predictions]]],
) -> Iterator[tuple[str, str, Estimate]]:
    """Method, metric and figure: of pixels, of networks, and of their differences."""
    for name, answers in pixels.items():
        for metric, one in answers.items():
            yield name, metric, classification_metrics(one)["accuracy"]
    seeds = {
        name: {metric: [one[metric] for one in runs] for metric in runs[0]}
        for name, runs in ours.items()
    }
    plain, augmented = seeds
    for name, figures in seeds.items():
        for metric, runs in figures.items():
            yield name, metric, over_seeds_and_test_sets(runs, metric="accuracy")
        for other, answers in pixels.items():
            for metric, runs in figures.items():
                gain = over_seeds_and_test_sets(runs, [answers[metric]] * len(runs), "accuracy")
                yield f"{name} minus {other}", metric, gain
    for metric, runs in seeds[augmented].items():
        gain = over_seeds_and_test_sets(runs, seeds[plain][metric], "accuracy")
        yield f"{augmented} minus {plain}", metric, gain


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    return command_of_seeds(__doc__, "augmented", PATH, rows, arguments, seeds=5)


if __name__ == "__main__":
    sys.exit(main())
