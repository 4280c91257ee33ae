"""Detectors that have seen healthy images only, and what their alarms promise.

    python -m experiments.anomaly_detection.measure detectors --data-dir DIR [--only METHOD]
    python -m experiments.anomaly_detection.measure promise --data-dir DIR

`detectors`: on PneumoniaMNIST the AUROC of each detector on test, beside PCA of pixels and the
nearest neighbour on pixels, the difference paired by image; what the alarm does, and whether its
promise stands. `promise`: 200 times the normal images of train and validation are dealt out anew
by group, a third each to the detector, the alarm and the test; how often the alarms exceed the
bound that a binomial variable of rate 5 % exceeds in 5 %. Appends to
experiments/anomaly_detection/results.csv; detectors that are there are not measured again.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cnn_jax import data, detecting
from cnn_jax.data import Dataset, Split
from cnn_jax.recipe import Recipe, for_data
from cnn_jax.training.baselines import pixel_features
from experiments.promises import resplit
from experiments.results import Row, read
from experiments.rows import append_each, here, row_of
from experiments.tables import ROOT

DATA, NORMAL = "pneumoniamnist", "normal"
FALSE_ALARM, CONFIDENCE = 0.05, 0.95
PATH = ROOT / "experiments" / "anomaly_detection" / "results.csv"
COMMAND = 'python -m experiments.anomaly_detection.measure {} --data-dir "$CNN_JAX_DATA"'

# Method and features, in the order of the table. None was chosen by looking at anomalous images.
DETECTORS: tuple[tuple[detecting.Method, str], ...] = (
    ("neighbours", "pixels"),
    ("mahalanobis", "pixels"),
    ("neighbours", "rotation"),
    ("mahalanobis", "rotation"),
    ("padim", "rotation"),
    ("neighbours", "cutpaste"),
    ("mahalanobis", "cutpaste"),
    ("neighbours", "contrastive"),
    ("mahalanobis", "contrastive"),
    ("autoencoder", "its own"),
    ("patchcore", "rotation"),
)
SHOWN = ("auroc", "fpr_at_95_tpr", "false_alarm_rate", "detection_rate")


def loaded(folder: str) -> tuple[Recipe, Dataset]:
    """The recipe for the data, and the data, copies of validation images taken out of train."""
    recipe = for_data(DATA).override({"data.root": folder})
    return recipe, data.resolve_duplicates(data.load(DATA, data_dir=folder))


def learning(recipe: Recipe) -> Recipe:
    """How networks learn from healthy images: the recipe for the data, for longer."""
    return recipe.override(
        {"train.epochs": 40, "train.select": "last", "loss.logit_adjustment": 0.0}
    )


def detectors(folder: str, only: str | None, networks: str) -> Iterator[Row]:
    """A detector's figures, its gains over the baselines, and its promise.

    In `networks` lies what each learned; detectors on the same features read it there.
    """
    recipe, dataset = loaded(folder)
    there = read(PATH) if PATH.exists() else ()
    known = {row.experiment for row in there if row.data_digest == dataset.digest[:16]}
    for method, features in DETECTORS:
        name = method if features == "its own" else f"{method} of {features}"
        if name in known or (only is not None and only != method):
            continue
        found = detecting.detect(
            dataset,
            NORMAL,
            method=method,
            features=detecting.PIXELS if features == "its own" else features,
            false_alarm=FALSE_ALARM,
            confidence=CONFIDENCE,
            recipe=learning(recipe),
            folder=None if features == "pixels" else Path(networks) / features,
        )
        common = {
            "command": COMMAND.format("detectors"),
            "data": DATA,
            "split": "test",
            "seed": "0",
            "data_digest": dataset.digest[:16],
            **here(),
        }
        gains = found.gains()  # before the first row: what has one counts as measured
        print(f"{name}: {found.figures['auroc']}; {found.promise_text}", flush=True)
        for metric in SHOWN:
            yield row_of(found.figures[metric], experiment=name, metric=metric, **common)
        for baseline, (auroc, gain) in gains.items():
            if baseline not in known:
                known.add(baseline)
                yield row_of(auroc, experiment=baseline, metric="auroc", **common)
            yield row_of(gain, experiment=f"{name} minus {baseline}", metric="auroc", **common)


def promise(folder: str) -> Iterator[Row]:
    """How often the alarms of new normal images exceed their binomial bound."""
    _, dataset = loaded(folder)
    normal = dataset.classes["label"].index(NORMAL)
    splits = [dataset.splits["train"], dataset.splits["validation"]]
    own = [split.take(np.flatnonzero(split.targets["label"] == normal)) for split in splits]
    features = np.concatenate([pixel_features(_images(split)) for split in own])
    ids = np.concatenate([split.ids for split in own])
    groups = _near_groups(dataset, ids)
    share, mean = resplit(features, ids, groups, false_alarm=FALSE_ALARM, confidence=CONFIDENCE)
    common = {
        "experiment": "alarm on 5 neighbours of pixels, 200 splits by group",
        "command": COMMAND.format("promise"),
        "data": DATA,
        "split": "train and validation, normal",
        "seed": "0",
        "data_digest": dataset.digest[:16],
        **here(),
    }
    print(f"bound exceeded in {share}; mean rate {mean.value:.4f}")
    yield row_of(share, metric="bound exceeded", **common)
    yield row_of(mean, metric="false_alarm_rate", **common)


def _images(split: Split) -> np.ndarray:
    return split.read_images(np.arange(len(split)))


def _near_groups(dataset: Dataset, ids: np.ndarray) -> np.ndarray:
    """The group of near-copies of each image; of those without, itself."""
    grouped = data.group_near_duplicates(dataset)
    names = {
        str(name): str(group)
        for split in grouped.splits.values()
        for name, group in zip(
            split.ids, split.ids if split.groups is None else split.groups, strict=True
        )
    }
    return np.array([names[str(name)] for name in ids])


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=["detectors", "promise"])
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--only", help="of the detectors, those of this method")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as networks:
        measured = (
            promise(options.data_dir)
            if options.what == "promise"
            else detectors(options.data_dir, options.only, networks)
        )
        return append_each(PATH, measured, "measure")


if __name__ == "__main__":
    sys.exit(main())
