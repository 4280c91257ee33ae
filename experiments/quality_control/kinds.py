"""Magnetic tiles: which kind of defect, and where, learned from masks of all kinds.

    python -m experiments.quality_control.kinds SPLITTING --data-dir DIR --out FOLDER [--folds 1,2]

Five folds, by `scene` (a tile under up to six lights, `groups.csv`), or by `image`, as the
literature splits them, whereby a tile is in training and in test: it leaks. A U-Net learns from the
masks which pixels are of which kind. An image is of the kind whose highest probability at any pixel
is highest, or normal: a factor and an offset for each class are fitted on the validation part of
the fold (`decision.fit_vector_scaling`), whose classes then count alike, whatever their number.
FOLDER keeps a run for each fold; those that are there are not trained again. Rows of results.csv
are written when all five are there, beside the nearest neighbour and logistic regression on 32×32
pixels, which know no masks.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cnn_jax import Run, data
from cnn_jax.data import Dataset
from cnn_jax.decision import adjust_prevalence, fit_vector_scaling, presence
from cnn_jax.evaluation import (
    CalibrationPredictions,
    Estimate,
    MaskPredictions,
    Predictions,
    classification_metrics,
    out_of_fold,
    out_of_fold_masks,
    paired_difference,
    per_class,
    segmentation_metrics,
)
from cnn_jax.recipe import Recipe
from cnn_jax.training.baselines import logistic_regression, nearest_neighbour
from experiments.kept import kept_run
from experiments.quality_control.tiles import DATA, PATH
from experiments.quality_control.tiles import LEARNING as OF_DETECTOR
from experiments.results import Row
from experiments.rows import append_each, reported

FOLDS, SIZE = 5, 96
# As the detector learns, but for these, which were chosen on the validation part of fold 1: Dice in
# the loss marked next to nothing there; what is copied from image to image is seen on more tiles.
LEARNING: Mapping[str, Any] = {
    **{name: value for name, value in OF_DETECTOR.items() if not name.startswith("data.")},
    "optimizer.weight_decay": 0.01,
    "augment.copy_paste": 0.7,
    "loss.dice": 0,
    "train.epochs": 25,
    "train.sampling": "balanced",
}
COMMAND = 'python -m experiments.quality_control.kinds {} --data-dir "$CNN_JAX_DATA" --out FOLDER'


def load(folder: str, splitting: str) -> Dataset:
    """All images, with a region for each kind of defect."""
    whole = data.load(DATA, data_dir=folder, image_size=SIZE, fit="stretch", masks=True)
    if splitting == "image":
        parts = {part: replace(split, groups=None) for part, split in whole.splits.items()}
        whole = whole.replace(splits=parts)
    return data.regions_by_class(whole)


def fold_of(whole: Dataset, number: int) -> Dataset:
    """One of the five folds."""
    return data.fold(whole, FOLDS, number, validation=0.2)


def kinds(masks: MaskPredictions, dataset: Dataset) -> Predictions:
    """Classes of images: the log odds of each kind at its likeliest pixel, and 0 for none."""
    found = presence(masks)
    classes = dataset.classes["label"]
    logits = np.zeros((len(masks), len(classes)), np.float32)
    for name, column in zip(found.classes, found.logits.T, strict=True):
        logits[:, classes.index(name)] = column
    split = dataset.splits[masks.split]
    place = {name: row for row, name in enumerate(split.ids.tolist())}
    labels = split.targets["label"][[place[name] for name in masks.ids.tolist()]]
    return replace(found, targets=labels, logits=logits, classes=classes, kind="class")


def decided(run: Run, dataset: Dataset) -> Predictions:
    """Classes of the test images, by what the validation part says of the odds."""
    held = kinds(run.masks("validation"), dataset)
    assert isinstance(held, CalibrationPredictions)
    scaled = fit_vector_scaling(held).apply(kinds(run.masks("test"), dataset))
    counts = np.bincount(held.labels(), minlength=len(held.classes)) + 0.5
    shares = dict(zip(held.classes, counts / counts.sum(), strict=True))
    alike = dict.fromkeys(held.classes, 1 / len(held.classes))
    return adjust_prevalence(scaled, alike, trained=shares)


def rows(splitting: str, folder: str, out: Path, folds: list[int]) -> Iterator[Row]:
    """Each figure of the five folds together as a row; none while some of them are missing."""
    whole = load(folder, splitting)
    found: dict[str, list[Predictions]] = {}
    masks = []
    for number in folds:
        dataset = fold_of(whole, number)
        run = kept_run(Recipe().override(LEARNING), dataset, out / f"{splitting}-{number}")
        masks.append(run.masks("test"))
        each = {"U-Net": decided(run, dataset)}
        plain = without_masks(dataset)
        for baseline in (nearest_neighbour(plain), logistic_regression(plain)):
            each[f"{baseline.name} on pixels"] = baseline.predictions["test"]
        for name, predictions in each.items():
            found.setdefault(name, []).append(predictions)
            figure = classification_metrics(predictions)["macro_f1"]
            print(f"fold {number}, {name}: macro-F1 {figure}", flush=True)
    if len(folds) < FOLDS:
        return
    pooled = {name: out_of_fold(each) for name, each in found.items()}
    for experiment, metric, figure in figures(pooled, out_of_fold_masks(masks)):
        fixed = {"command": COMMAND.format(splitting), "seed": "0"}
        split = f"by {splitting}{'' if splitting == 'scene' else ', LEAKS'}, {FOLDS} folds"
        yield reported(figure, whole, experiment, metric, split, **fixed)


def figures(
    pooled: Mapping[str, Predictions], masks: MaskPredictions
) -> Iterator[tuple[str, str, Estimate]]:
    """Method, metric and figure."""
    network, *others = pooled
    for name, predictions in pooled.items():
        measured = classification_metrics(predictions)
        for metric in ("macro_f1", "balanced_accuracy", "accuracy"):
            yield name, metric, measured[metric]
        for row in per_class(predictions):
            yield f"{name}, {row.name.removeprefix('MT_').lower()}", "auroc of one kind", row.auroc
    for other in others:
        gain = paired_difference(pooled[network], pooled[other], "macro_f1")
        yield f"{network} minus {other}", "macro_f1", gain
    of_masks = segmentation_metrics(masks)
    for metric in ("dice_present", *(f"dice_present of {name}" for name in masks.regions[1:])):
        yield network, metric, of_masks[metric]


def without_masks(dataset: Dataset) -> Dataset:
    """What those see that know no masks."""
    splits = {part: replace(split, masks=None) for part, split in dataset.splits.items()}
    return dataset.replace(splits=splits, regions=())


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("splitting", choices=["scene", "image"])
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--folds", default="1,2,3,4,5")
    options = parser.parse_args(arguments)
    folds = [int(number) for number in options.folds.split(",")]
    measured = rows(options.splitting, options.data_dir, options.out, folds)
    return append_each(PATH, measured, "kinds")


if __name__ == "__main__":
    sys.exit(main())
