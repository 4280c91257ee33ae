"""Labeled Faces in the Wild: how the answer depends on people, and on images of each person.

    python -m experiments.face_recognition.lfw_curve --data-dir DIR --checkpoints DIR

The first network of `lfw`, tested on the first two folds, with the loss that it chooses there; it
learns once more from a half and a quarter of the people with all of their images, and from all
people with two images of each, at most. (Where nobody has two images, the library refuses a loss
of pairs.) Steps are as many each time, within 6 %; the first epoch, in which the rate rises, is
the shorter the fewer images there are. The epoch is chosen on the third fold. The threshold of a
tested fold is the best on the other one. Beside it pixels, which learn nothing, and eigenfaces of
the same images (of 5,000 at most). Differences are paired by pair, at the thresholds of each;
intervals are of these pairs alone, not of other seeds or other people to learn from. What is done
is kept in the folder of checkpoints, which may be that of `lfw`. Appends to results.csv beside
this file.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cnn_jax import data
from cnn_jax.data import Dataset
from cnn_jax.evaluation import Estimate, PairScores, fold_accuracy, verification_metrics
from cnn_jax.evaluation.verification_intervals import pair_bootstrap
from cnn_jax.evaluation.weighted import mean_statistic
from experiments.face_recognition import lfw
from experiments.results import Row
from experiments.rows import append_each, reported

NUMBER = 0  # of the network, and so of what is learned and tested
NOTE = "one training: the interval is of the pairs, not of seeds or of people to learn from"
SPLIT = "View 2, folds 1 and 2, fewer to learn from"
COMMAND = (
    'python -m experiments.face_recognition.lfw_curve --data-dir "$CNN_JAX_DATA" '
    "--checkpoints runs/lfw"
)


def fewer(parts: Dataset) -> dict[str, dict[str, Any]]:
    """What is learned from -> what that changes in the recipe; the whole first."""
    people = len(np.unique(parts.splits["train"].targets["label"]))
    return {
        "all images of all people": {},
        "all images of a half of the people": {"data.identities": people // 2},
        "2 images of each person, at most": {"data.shots": 2},
        "all images of a quarter of the people": {"data.identities": people // 4},
    }


def reduced(parts: Dataset, changes: Mapping[str, Any]) -> Dataset:
    """The data set as the recipe makes it smaller."""
    if people := changes.get("data.identities"):
        return data.fewer_identities(parts, people)
    if shots := changes.get("data.shots"):
        return data.few_shots(parts, shots)
    return parts


def rows(folder: str, out: Path) -> Iterator[Row]:
    """Each figure as a row."""
    faces = lfw.Faces(folder)
    whole = faces.parts(NUMBER)
    loss, images = lfw.chosen_loss(faces, NUMBER, out), len(whole.splits["train"])

    def figures(of: str, learned: str, pairs: PairScores) -> Iterator[Row]:
        for metric, figure in (
            ("accuracy", fold_accuracy(pairs).estimate),
            ("auroc", verification_metrics(pairs, fars=())["auroc"]),
        ):
            yield row(of, learned, metric, figure)

    def row(of: str, learned: str, metric: str, figure: Estimate) -> Row:
        fixed = {"command": COMMAND, "seed": str(NUMBER), "note": NOTE}
        return reported(figure, faces.loaded, f"{of}: {learned}", metric, SPLIT, **fixed)

    best = None
    for number, (name, changes) in enumerate(fewer(whole).items()):
        part = reduced(whole, changes)
        train = part.splits["train"]
        people = len(np.unique(train.targets["label"]))
        learned = f"{name} ({len(train):,} images, {people:,} people)"
        epochs = round(lfw.RECIPE["train.epochs"] * images / len(train))
        # The whole is a network that `lfw` trains, too.
        word = f"fewer-{number}" if changes else f"network-{NUMBER + 1}"
        place = out / f"{word}-{loss}-{epochs}"
        run = lfw.trained(faces, NUMBER, place, loss, epochs, **changes)
        found = {
            "network": faces.scores(lfw.embedded(faces, run), NUMBER, "test"),
            "eigenfaces": of_baseline(faces, part, "eigenfaces"),
        }
        if best is None:
            best = found["network"]
            found["pixels"] = of_baseline(faces, part, "pixels")
        for of, pairs in found.items():
            yield from figures(of, learned, pairs)
        for of in found:
            if of != "network":
                gain = accuracy_gain(found["network"], found[of])
                yield row(f"network, minus {of}", learned, "accuracy", gain)
        if changes:
            gain = accuracy_gain(found["network"], best)
            yield row("network, minus that of all images", learned, "accuracy", gain)


def of_baseline(faces: lfw.Faces, part: Dataset, name: str) -> PairScores:
    """The pairs of the tested folds, by a baseline that learns from a part of the images."""
    return faces.scores(lfw.baseline_rows(faces, part, name), NUMBER, "test")


def accuracy_gain(ours: PairScores, other: PairScores) -> Estimate:
    """How much more often the one is right about the same pairs, at the thresholds of each."""
    gain = right(ours) - right(other)
    found = pair_bootstrap({"": mean_statistic(gain)}, ours)[""]
    return replace(found, percent=True, difference=True)


def right(pairs: PairScores) -> np.ndarray:
    """float64 `[P]`: 1 where a pair is told rightly by the threshold from the other folds."""
    assert pairs.fold is not None
    thresholds = fold_accuracy(pairs, resamples=2).thresholds
    accepted = 2 - 2 * pairs.scores < thresholds[pairs.fold]
    return (accepted == pairs.same).astype(np.float64)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--checkpoints", required=True, type=Path, metavar="DIR")
    options = parser.parse_args(arguments)
    options.checkpoints.mkdir(parents=True, exist_ok=True)
    return append_each(lfw.PATH, rows(options.data_dir, options.checkpoints), "lfw_curve")


if __name__ == "__main__":
    sys.exit(main())
