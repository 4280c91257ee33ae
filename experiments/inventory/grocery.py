"""Groceries: 81 products, 43 kinds of them, the official parts, and one iconic image of each.

    python -m experiments.inventory.grocery --data-dir DIR --out RUN

Trains a run into RUN, or takes the finished one that lies there. Figures on the test part: accuracy
of products, and of kinds, whose probability is the sum of their products'; retrieval among the test
images by the pooled features; and the share of test images whose nearest iconic image (81, never
learned from) is of their product. Beside each what pixels say. Appends to results.csv beside this
file.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cnn_jax import Run, data
from cnn_jax.data import Dataset, Split, decode_image
from cnn_jax.evaluation import (
    EmbeddingPredictions,
    Estimate,
    Predictions,
    classification_metrics,
    paired_difference,
    retrieval_metrics,
)
from cnn_jax.recipe import Recipe
from cnn_jax.recognising import Embedder
from cnn_jax.training.baselines import logistic_regression, nearest_neighbour, pixel_features
from experiments.kept import kept_run
from experiments.results import Row
from experiments.rows import append_each, reported

DATA = "grocery_store"
PATH = Path(__file__).parent / "results.csv"
COMMAND = 'python -m experiments.inventory.grocery --data-dir "$CNN_JAX_DATA" --out RUN'
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


def measure(run: Run, dataset: Dataset, folder: Path) -> Iterator[tuple[str, str, Estimate]]:
    """Method, metric and figure."""
    kinds, test = kinds_of(dataset), dataset.splits["test"]
    found = {"network": run.predictions("test")}
    for baseline in (nearest_neighbour(dataset), logistic_regression(dataset)):
        found[f"{baseline.name} on pixels"] = baseline.predictions["test"]
    coarse = {
        name: by_kind(one, dataset, kinds, summed=not name.startswith("nearest"))
        for name, one in found.items()
    }
    for metric, of in (("fine accuracy", found), ("coarse accuracy", coarse)):
        for name, predictions in of.items():
            yield name, metric, classification_metrics(predictions)["accuracy"]
        for name in list(of)[1:]:
            gain = paired_difference(of["network"], of[name], "accuracy")
            yield f"network minus {name}", metric, gain
    yield from _retrieved(run, test, dataset, folder)


def _retrieved(
    run: Run, test: Split, dataset: Dataset, folder: Path
) -> Iterator[tuple[str, str, Estimate]]:
    products = np.array(dataset.classes["label"])[test.targets["label"]]
    images = test.read_images(np.arange(len(test)))
    iconic, names = icons(folder, dataset)
    for name, features in (("network", Embedder(run.classifier)), ("pixels", pixel_features)):
        queries = embedded(features(images), test.ids, products)
        for metric, figure in retrieval_metrics(queries).items():
            yield f"features of the {name}", metric, figure
        gallery = embedded(features(iconic), names, names)
        one = retrieval_metrics(queries, gallery)["precision_at_1"]
        yield f"features of the {name}", "nearest icon accuracy", one


def rows(folder: str, out: Path) -> Iterator[Row]:
    """Each figure as a row."""
    dataset = data.load(DATA, data_dir=folder)
    run = kept_run(Recipe().override(LEARNING), dataset, out)
    for experiment, metric, figure in measure(run, dataset, Path(folder) / DATA):
        yield reported(figure, dataset, experiment, metric, "test", command=COMMAND, seed="0")


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--out", required=True, type=Path)
    options = parser.parse_args(arguments)
    return append_each(PATH, rows(options.data_dir, options.out), "grocery")


if __name__ == "__main__":
    sys.exit(main())
