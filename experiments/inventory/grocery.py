"""Groceries: 81 products, 43 kinds of them, the official parts, and one iconic image of each.

    python -m experiments.inventory.grocery --data-dir DIR --out FOLDER [--seeds 3]

Trains several seeds into FOLDER, or takes those that lie there. Figures on the test part: accuracy
of products, and of kinds, whose probability is the sum of their products', of each network and of
all together (the mean of their probabilities); retrieval among the test images by the pooled
features; and the share of test images whose nearest iconic image (81, never learned from) is of
their product. Beside each what pixels say. Appends to results.csv beside this file.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cnn_jax import data
from cnn_jax.data import Dataset, Split, decode_image
from cnn_jax.evaluation import (
    EmbeddingPredictions,
    Estimate,
    Predictions,
    classification_metrics,
    ensemble,
    over_seeds,
    over_seeds_and_test_sets,
    paired_difference,
    retrieval_metrics,
)
from cnn_jax.population import Population
from cnn_jax.recipe import Recipe
from cnn_jax.recognising import Embedder
from cnn_jax.training.baselines import logistic_regression, nearest_neighbour, pixel_features
from experiments.kept import kept_population, seeds_from_zero
from experiments.results import Row
from experiments.rows import command_of_seeds, reported

DATA = "grocery_store"
PATH = Path(__file__).parent / "results.csv"
COMMAND = (
    'python -m experiments.inventory.grocery --data-dir "$CNN_JAX_DATA" --out FOLDER --seeds {}'
)
# Not tuned: the optimizer of the recipe for CIFAR-10, and strong changes of place and colour.
LEARNING: Mapping[str, Any] = {
    "model.options": {"widths": [48, 96, 192], "units": 2, "stem_stride": 2},
    "augment.crop": 0.35,
    "augment.translate": 0,
    "augment.flip": True,
    "augment.brightness": 0.3,
    "augment.contrast": 0.3,
    "augment.saturation": 0.3,
    "augment.hue": 0.03,
    "loss.label_smoothing": 0.1,
    "optimizer.name": "muon",
    "optimizer.learning_rate": 0.02,
    "optimizer.other_learning_rate": 0.03,
    "schedule.name": "linear",
    "schedule.warmup_epochs": 2.0,
    "train.epochs": 50,
    "train.batch_size": 64,
    "train.ema": 0.98,
    "train.select": "last",
}


def kinds_of(dataset: Dataset) -> np.ndarray:
    """int64 `[81]`: the kind of each product."""
    found = np.zeros(len(dataset.classes["label"]), np.int64)
    for split in dataset.splits.values():
        found[split.targets["label"]] = split.targets["coarse"]
    return found


def by_kind(
    predictions: Predictions, dataset: Dataset, kinds: np.ndarray, *, summed: bool
) -> Predictions:
    """Predictions of kinds: of summed probabilities, or of the product with the highest logit."""
    classes = dataset.classes["coarse"]
    logits = np.full((len(predictions), len(classes)), -np.inf)
    z = predictions.logits.astype(np.float64)
    combine = np.logaddexp if summed else np.maximum
    for product, kind in enumerate(kinds.tolist()):
        logits[:, kind] = combine(logits[:, kind], z[:, product])
    return replace(
        predictions,
        targets=kinds[predictions.labels()].astype(np.int32),
        logits=logits.astype(np.float32),
        classes=classes,
    )


def icons(folder: Path, dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Iconic images uint8 `[81, H, W, C]`, and the products they show, str `[81]`."""
    with open(folder / "classes.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    paths = [folder / row["Iconic Image Path (str)"].lstrip("/") for row in rows]
    pixels = np.stack([decode_image(path, dataset.image_shape) for path in paths])
    return pixels, np.array([row["Class Name (str)"] for row in rows])


def embedded(features: np.ndarray, ids: np.ndarray, products: np.ndarray) -> EmbeddingPredictions:
    """Features as embeddings of products."""
    return EmbeddingPredictions("test", ids, products, features.astype(np.float32))


def measure(
    population: Population, dataset: Dataset, folder: Path
) -> Iterator[tuple[str, str, Estimate]]:
    """Method, metric and figure; an interval over seeds covers other test sets, too."""
    networks = [run.predictions("test") for run in population.members.values()]
    pixels = {
        f"{one.name} on pixels": one.predictions["test"]
        for one in (nearest_neighbour(dataset), logistic_regression(dataset))
    }
    kinds = kinds_of(dataset)

    def of_kinds(predictions: Predictions, name: str = "") -> Predictions:
        return by_kind(predictions, dataset, kinds, summed=not name.startswith("nearest"))

    together = ensemble(networks)
    yield from _classified("fine accuracy", networks, together, pixels)
    yield from _classified(
        "coarse accuracy",
        [of_kinds(one) for one in networks],
        of_kinds(together),
        {name: of_kinds(one, name) for name, one in pixels.items()},
    )
    yield from _retrieved(population, dataset.splits["test"], dataset, folder)


def _classified(
    metric: str,
    networks: Sequence[Predictions],
    together: Predictions,
    pixels: Mapping[str, Predictions],
) -> Iterator[tuple[str, str, Estimate]]:
    """Figures of the networks, of all together, of pixels, and of the differences from these."""
    all_of_them = f"ensemble of {len(networks)}"
    yield "network", metric, over_seeds_and_test_sets(networks, metric="accuracy")
    yield all_of_them, metric, classification_metrics(together)["accuracy"]
    for name, answers in pixels.items():
        yield name, metric, classification_metrics(answers)["accuracy"]
        gain = over_seeds_and_test_sets(networks, [answers] * len(networks), "accuracy")
        yield f"network minus {name}", metric, gain
        gain = paired_difference(together, answers, "accuracy")
        yield f"{all_of_them} minus {name}", metric, gain


def _retrieved(
    population: Population, test: Split, dataset: Dataset, folder: Path
) -> Iterator[tuple[str, str, Estimate]]:
    products = np.array(dataset.classes["label"])[test.targets["label"]]
    images = test.read_images(np.arange(len(test)))
    iconic, names = icons(folder, dataset)

    def found(features: Callable[[np.ndarray], np.ndarray]) -> dict[str, Estimate]:
        queries = embedded(features(images), test.ids, products)
        gallery = embedded(features(iconic), names, names)
        nearest = retrieval_metrics(queries, gallery)["precision_at_1"]
        return {**retrieval_metrics(queries), "nearest icon accuracy": nearest}

    each = [found(Embedder(run.classifier)) for run in population.members.values()]
    for metric, first in each[0].items():
        mean = over_seeds([one[metric].value for one in each], first.n, percent=first.percent)
        yield "features of the network", metric, mean
    for metric, figure in found(pixel_features).items():
        yield "features of the pixels", metric, figure


def rows(folder: str, out: Path, seeds: int) -> Iterator[Row]:
    """Each figure as a row."""
    dataset = data.load(DATA, data_dir=folder)
    recipe = Recipe().override(LEARNING)
    population = kept_population(recipe, dataset, out, seeds_from_zero(seeds))
    fixed = {"command": COMMAND.format(seeds), "seed": f"0..{seeds - 1}"}
    for experiment, metric, figure in measure(population, dataset, Path(folder) / DATA):
        yield reported(figure, dataset, experiment, metric, "test", **fixed)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    return command_of_seeds(__doc__, "grocery", PATH, rows, arguments, seeds=3)


if __name__ == "__main__":
    sys.exit(main())
