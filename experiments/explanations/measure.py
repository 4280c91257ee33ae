"""Audits of every method on two networks, and whether they point at planted evidence.

    python -m experiments.explanations.measure --data-dir DIR --out FOLDER

Two small networks: one learns 200 digits of each class of MNIST, one images with planted evidence
(see `planted`). Each method is audited by 96 validation images of each (see `cnn-jax explain`): how
much of its maps is left when the weights are drawn anew, and how much more the probability hangs on
the pixels that it holds high than on pixels in random order. On planted evidence it is also seen
how often the highest pixel lies on it, in test images whose class is recognised; of the true class.
FOLDER keeps the networks; those that are there are not trained again. Appends to results.csv beside
this file.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cnn_jax import Run, data, explain
from cnn_jax.data import Dataset
from cnn_jax.errors import ModelError
from cnn_jax.evaluation import Estimate, classification_metrics, paired_difference
from cnn_jax.explaining import Controls, audit_method, maps_of
from cnn_jax.recipe import Recipe
from experiments.explanations import planted
from experiments.kept import kept_run
from experiments.results import Row
from experiments.rows import append_each, reported

PATH = Path(__file__).with_name("results.csv")
SHOTS, IMAGES = 200, 96
LEARNING: Mapping[str, Any] = {
    "model.name": "compact",
    "model.options": {"widths": (16, 32, 64), "units": 1},
    "augment.translate": 0,
    "augment.flip": False,
    "train.epochs": 20,
    "train.batch_size": 64,
}
COMMAND = 'python -m experiments.explanations.measure --data-dir "$CNN_JAX_DATA" --out FOLDER'
Measure = Callable[[str, str, Estimate, str], Row]


def digits(folder: str) -> Dataset:
    """Few digits of MNIST."""
    return data.few_shots(data.load("mnist", data_dir=folder), SHOTS, seed=0)


def trained(dataset: Dataset, place: Path) -> Run:
    """The run in a folder, or a new one, with baselines.

    Raises:
      ResultsError: what lies there was trained otherwise.
    """
    return kept_run(Recipe().override(dict(LEARNING)), dataset, place, baselines=True)


def rows(folder: str, out: Path, images: int = IMAGES) -> Iterator[Row]:
    """Each figure as a row."""
    for name, dataset in (("mnist", digits(folder)), ("planted", planted.load())):
        run = trained(dataset, out / name)
        split = f"{SHOTS} of each class" if name == "mnist" else "made by experiments.explanations"

        def row(
            experiment: str, metric: str, figure: Estimate, note: str = "",
            *, dataset: Dataset = dataset, split: str = split,
        ) -> Row:  # fmt: skip
            fixed = {"command": COMMAND, "seed": "0", "note": note}
            return reported(figure, dataset, experiment, metric, split, **fixed)

        yield from _accuracies(run, row)
        controls = Controls.of(run, images)
        for method in explain.METHODS:
            yield from _audited(run, method, controls, row)
        if name == "planted":
            yield from _pointing(run, row)


def _accuracies(run: Run, row: Measure) -> Iterator[Row]:
    """Of the network, of the baselines, and how much better it is."""
    test = run.predictions("test")
    yield row("the network", "test accuracy", run.metrics["test"]["accuracy"], "")
    for name, note in run.info["baselines"].items():
        other = run.predictions(f"{name}-test")
        figure = classification_metrics(other)["accuracy"]
        yield row(f"{name} on pixels", "test accuracy", figure, note)
        gain = paired_difference(test, other, "accuracy")
        yield row(f"the network minus {name}", "test accuracy", gain, "")


def _audited(run: Run, method: str, controls: Controls, row: Measure) -> Iterator[Row]:
    try:
        found = audit_method(run, method, controls)
    except ModelError as error:
        print(f"{method}: {error}", flush=True)
        return
    said = "; ".join(found.failures) or "passes"
    yield row(method, "left of maps", found.randomisation.retained, said)
    yield row(method, "deletion", found.deletion, "")
    yield row(method, "insertion", found.insertion, "")
    yield row(method, "ROAD", found.road, "")
    yield row(method, "deletion, against edges", found.deletion_edges, "")


def _pointing(run: Run, row: Measure) -> Iterator[Row]:
    """How often the highest pixel lies on the evidence."""
    test = run.predictions("test")
    right = np.flatnonzero(test.logits.argmax(axis=1) == test.targets)
    pixels = run.dataset.splits["test"].read_images(right)
    evidence, labels = planted.evidence_of_test()[right], np.asarray(test.targets)[right]

    def hits(name: str, maps: np.ndarray) -> Row:
        return row(name, "pointing accuracy", explain.pointing_game(maps, evidence), "")

    for method in explain.METHODS:
        try:
            yield hits(method, maps_of(run, method, run.variables, pixels, labels))
        except ModelError as error:
            print(f"{method}: {error}", flush=True)
    yield hits("an edge detector", explain.edges(pixels))
    yield hits("random maps", explain.random_maps(pixels))


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--out", required=True, type=Path)
    options = parser.parse_args(arguments)
    return append_each(PATH, rows(options.data_dir, options.out), "explanations")


if __name__ == "__main__":
    sys.exit(main())
