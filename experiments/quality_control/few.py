"""Magnetic tiles: normal ones, made defects, and few real ones that are labelled.

    python -m experiments.quality_control.few --data-dir DIR [--splits N] [--labelled KIND ...]

The splits, the test images and the figures are those of `tiles` by scene. Labelled scenes come from
the third of the scenes with a defect that is no part of the test: `none`; `one`, a scene of each of
the five kinds of defects; or `all` 22. A U-Net learns from their masks, as many labelled images as
normal ones in a batch, and finds made defects beside them (`augment.defects`): an image is as
anomalous as its likeliest pixel. Appends to experiments/quality_control/results.csv.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cnn_jax import train
from cnn_jax.data import Dataset, Split
from cnn_jax.data.digest import dataset_digest
from cnn_jax.decision import presence
from cnn_jax.evaluation import Estimate, bootstrap
from cnn_jax.recipe import Recipe
from cnn_jax.training.progress import Silent
from experiments.quality_control.tiles import (
    DATA,
    LEARNING,
    PATH,
    Measured,
    Scores,
    Tiles,
    map_figures,
)
from experiments.results import Row
from experiments.rows import append_each, here, row_of

SPLITS = 3
LABELLED = ("none", "one", "all")
CHANGES: Mapping[str, Any] = {"augment.defects": 0.7, "train.sampling": "balanced"}
COMMAND = 'python -m experiments.quality_control.few --data-dir "$CNN_JAX_DATA" --splits {}'


def labelled_rows(tiles: Tiles, which: str, seed: int) -> np.ndarray:
    """Images with a defect that are learned from, with their masks."""
    rows = np.flatnonzero(tiles.developed & ~tiles.normal)
    if which == "all":
        return rows
    if which == "none":
        return rows[:0]
    whole, rng = tiles.whole, np.random.default_rng(seed)
    assert whole.groups is not None
    kinds, groups = whole.targets["label"][rows], whole.groups[rows]
    chosen = [rng.choice(np.unique(groups[kinds == kind])) for kind in np.unique(kinds)]
    return rows[np.isin(groups, chosen)]


def scored(tiles: Tiles, recipe: Recipe, parts: Mapping[str, np.ndarray]) -> Scores:
    """Of the test images, by a network that learned from the other parts."""
    splits = {part: _two_classes(tiles, rows) for part, rows in parts.items()}
    dataset = Dataset(
        name=DATA,
        splits=splits,
        classes={"label": ("normal", "defect")},
        digest=dataset_digest(splits),
        regions=("background", "defect"),
    )
    with tempfile.TemporaryDirectory() as folder:
        run = train(recipe, data=dataset, out=Path(folder) / "run", reporter=Silent())
        masks = run.masks("test")
    place = {name: row for row, name in enumerate(masks.ids.tolist())}
    order = [place[name] for name in splits["test"].ids.tolist()]
    found = presence(masks).logits[:, 0].astype(np.float64)
    return found[order], masks.probabilities[order, ..., 0].astype(np.float32)


def _two_classes(tiles: Tiles, rows: np.ndarray) -> Split:
    split = tiles.whole.take(rows)
    return replace(split, targets={"label": (~tiles.normal[rows]).astype(np.int32)})


def measure(
    recipe: Recipe, splits: int, labelled: tuple[str, ...]
) -> Iterator[tuple[str, str, Estimate]]:
    """Which scenes were labelled, metric and figure."""
    tiles = Tiles.load(recipe)
    found = {which: Measured(tiles) for which in labelled}
    for seed in range(splits):
        parts = tiles.parts("scene", seed)
        for which, measured in found.items():
            known = labelled_rows(tiles, which, seed)
            learned = {**parts, "train": np.concatenate([parts["train"], known])}
            own = recipe.override({"seed": seed})
            if which == "none":
                own = own.override({"train.sampling": "uniform"})
            auroc = measured.add(parts["test"], scored(tiles, own, learned))
            print(f"split {seed}, {which} ({len(known)} images): AUROC {auroc:.4f}", flush=True)
    first, *others = labelled
    statistics = {which: measured.auroc for which, measured in found.items()}
    for other in others:
        statistics[f"{other} minus {first}"] = lambda weights, other=other: (  # type: ignore[misc]
            found[other].auroc(weights) - found[first].auroc(weights)
        )
    for name, figure in bootstrap(statistics, len(tiles.whole), tiles.whole.groups).items():
        yield name, "auroc", replace(figure, difference=" minus " in name)
    for which, measured in found.items():
        for metric, figure in map_figures(measured):
            yield which, metric, figure


def rows(folder: str, splits: int, labelled: tuple[str, ...]) -> Iterator[Row]:
    """Each figure as a row."""
    recipe = Recipe().override({**LEARNING, **CHANGES, "data.root": folder})
    digest = Tiles.load(recipe).digest
    for which, metric, figure in measure(recipe, splits, labelled):
        print(f"{which} {metric} {figure}", flush=True)
        yield row_of(
            replace(figure, n_seeds=splits),
            experiment=f"labelled scenes: {which}",
            metric=metric,
            command=COMMAND.format(splits),
            data=DATA,
            data_digest=digest[:16],
            split=f"by scene, {splits} splits, labelled",
            seed="",
            note="none, one of each kind (5), or all 22 that are no part of the test",
            **here(),
        )


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--splits", type=int, default=SPLITS)
    parser.add_argument("--labelled", nargs="+", choices=LABELLED, default=LABELLED)
    options = parser.parse_args(arguments)
    measured = rows(options.data_dir, options.splits, tuple(options.labelled))
    return append_each(PATH, measured, "few")


if __name__ == "__main__":
    sys.exit(main())
