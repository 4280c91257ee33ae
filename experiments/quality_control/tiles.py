"""Magnetic tiles: what is no normal tile, by detectors that have seen normal ones only.

    python -m experiments.quality_control.tiles SPLITTING METHOD --data-dir DIR [--splits N]
    python -m experiments.quality_control.tiles scene promise --data-dir DIR

A scene is a tile under up to six lights (`groups.csv`); one with a defect is kept out of training.
SPLITTING is `scene`: half of the other scenes train, a quarter draw the alarm, and a quarter are
tested beside those with a defect; or `image`: the same shares of their images, as the literature
splits them, whereby a tile is in training and in test: it leaks. Which method, image size and how
long was chosen on a third of the scenes with a defect, which is no part of the test. METHOD is one
of `cnn_jax.detect`, or `pixels`: the nearest neighbour on 32×32 pixels, and PCA of them. Each
figure is the mean over the splits, its interval a bootstrap of the scenes that all splits share.
`promise`: the scenes without a defect are dealt out 200 times, a third each to five neighbours on
pixels, their alarm, and the test: how often more scenes raise it than was promised. Appends to
experiments/quality_control/results.csv.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cnn_jax import data
from cnn_jax.anomaly import fit_neighbours, fit_reconstruction
from cnn_jax.data import Dataset, Split
from cnn_jax.data.digest import dataset_digest
from cnn_jax.data.pooling import pool
from cnn_jax.detecting.scorer import OF_NETWORK, Scorer, fit_scorer
from cnn_jax.evaluation import Estimate, anomaly_map_metrics, au_pimo, bootstrap
from cnn_jax.evaluation.weighted import Ranking
from cnn_jax.pretraining import pretrain
from cnn_jax.recipe import Recipe
from cnn_jax.training.baselines import pixel_features
from cnn_jax.training.progress import Silent
from experiments.promises import RESPLITS, resplit
from experiments.results import Row
from experiments.rows import append_each, here, row_of
from experiments.tables import ROOT

DATA, NORMAL = "magnetic_tile", "MT_Free"
SPLITS = 20
SHARES = {"train": 0.5, "validation": 0.25, "test": 0.25}
DEVELOPMENT = 1 / 3  # of the scenes with a defect
PATH = ROOT / "experiments" / "quality_control" / "results.csv"
# Of a third of the scenes, some 50, fewer false alarms than this cannot be promised.
FALSE_ALARM, CONFIDENCE = 0.1, 0.95
COMMAND = 'python -m experiments.quality_control.tiles {} {} --data-dir "$CNN_JAX_DATA"'

LEARNING: Mapping[str, Any] = {
    "data.source": DATA,
    "data.image_size": 96,
    "data.fit": "stretch",
    "data.masks": True,
    "augment.flip": True,
    "augment.flip_vertical": True,
    "augment.brightness": 0.15,
    "augment.contrast": 0.25,
    "optimizer.name": "adamw",
    "optimizer.learning_rate": 0.002,
    "optimizer.weight_decay": 0.0001,
    "schedule.warmup_epochs": 3.0,
    "model.name": "unet",
    "model.options": {"stride": 2},
    "train.epochs": 30,
    "train.batch_size": 12,
    "train.ema": 0.98,
    "train.select": "last",
}


# Features are learned by a classifier, which is to tell what both flips together do.
CLASSIFYING = {"model.name": "compact", "model.options": {}, "augment.flip_vertical": False}


@dataclass(frozen=True, eq=False)
class Tiles:
    """All images as one split, and what is known of their scenes.

    Attributes:
      whole: with masks and groups, the scenes.
      digest: of the data.
      normal: bool `[N]`, images without a defect.
      faultless: bool `[N]`, images of scenes without a defect.
      developed: bool `[N]`, images of the scenes with a defect that choices were made on.
    """

    whole: Split
    digest: str
    normal: np.ndarray
    faultless: np.ndarray
    developed: np.ndarray

    @classmethod
    def load(cls, recipe: Recipe) -> Tiles:
        """Read and put together; the parts that were made are of no use here."""
        dataset = data.load(
            DATA,
            data_dir=recipe.data.root,
            image_size=recipe.data.image_size,
            fit=recipe.data.fit,
            masks=True,
        )
        whole = pool(dataset, tuple(dataset.splits), "have masks")
        assert whole.groups is not None
        normal = whole.targets["label"] == dataset.classes["label"].index(NORMAL)
        faulty = np.unique(whole.groups[~normal])
        drawn = np.random.default_rng(12345).permutation(faulty)
        some = drawn[: round(DEVELOPMENT * len(faulty))]
        return cls(
            whole=whole,
            digest=dataset.digest,
            normal=normal,
            faultless=~np.isin(whole.groups, faulty),
            developed=np.isin(whole.groups, some),
        )

    def parts(self, splitting: str, seed: int, *, develop: bool = False) -> dict[str, np.ndarray]:
        """Positions of the images of each part."""
        rows = np.flatnonzero(self.faultless)
        assert self.whole.groups is not None
        units = self.whole.groups[rows] if splitting == "scene" else self.whole.ids[rows]
        names = np.random.default_rng(seed).permutation(np.unique(units))
        ends = np.round(np.cumsum([*SHARES.values()]) * len(names)).astype(int)
        found = {
            part: rows[np.isin(units, some)]
            for part, some in zip(SHARES, np.split(names, ends[:-1]), strict=True)
        }
        beside = self.developed if develop else ~self.faultless & ~self.developed
        found["test"] = np.concatenate([found["test"], np.flatnonzero(beside)])
        return found


Scores = tuple[np.ndarray, np.ndarray | None]


def fitted(method: str, recipe: Recipe, train: Split, held: Split) -> Callable[[Split], Scores]:
    """What scores a split, having seen normal images alone, and maps them where it can."""
    if method == "nearest neighbour on pixels":
        known = fit_neighbours(pixel_features(_images(train)), k=1)
        return lambda split: (known.score(pixel_features(_images(split))), None)
    if method == "PCA of pixels":
        components = fit_reconstruction(pixel_features(_images(train)))
        return lambda split: (components.score(pixel_features(_images(split))), None)
    scorer = _scorer(method, recipe, train, held)
    return lambda split: (scorer.of(split), scorer.maps(split))


def _scorer(method: str, recipe: Recipe, train: Split, held: Split) -> Scorer:
    name, _, objective = method.partition(" of ")
    learned = OF_NETWORK.get(name, objective)
    parts = {"train": train, "validation": held}
    seen = Dataset(
        name=DATA,
        splits=parts,
        classes={"label": (NORMAL,)},
        digest=dataset_digest(parts),
    )
    if name not in OF_NETWORK:
        recipe = recipe.override(CLASSIFYING)
    network = pretrain(recipe, seen, learned, reporter=Silent())  # type: ignore[arg-type]
    return fit_scorer(name, train, network)  # type: ignore[arg-type]


def _images(split: Split) -> np.ndarray:
    return split.read_images(np.arange(len(split)))


def _normal(split: Split) -> Split:
    """Without masks, all of one class: as a detector sees them."""
    labels = np.zeros(len(split), np.int32)
    return Split(_images(split), {"label": labels}, split.ids, split.groups)


class Measured:
    """The figures of all splits, each with the weights of the images that they share."""

    def __init__(self, tiles: Tiles) -> None:
        self.tiles = tiles
        self.rankings: list[tuple[np.ndarray, Ranking]] = []
        self.maps: list[dict[str, Estimate]] = []

    def add(self, rows: np.ndarray, scores: Scores) -> float:
        """Add a split; returns its AUROC."""
        split, normal = self.tiles.whole.take(rows), self.tiles.normal[rows]
        ranking = Ranking.of(scores[0], ~normal)
        self.rankings.append((rows, ranking))
        if scores[1] is not None:
            assert split.masks is not None
            masks = split.masks > 0
            found = anomaly_map_metrics(scores[1], masks, resamples=1)
            clean = normal & ~masks.any(axis=(1, 2))
            found["au_pimo"] = au_pimo(scores[1], masks, normal=clean, resamples=1).mean
            self.maps.append(found)
        return float(ranking.auroc(np.ones((len(rows), 1)))[0])

    def auroc(self, weights: np.ndarray) -> np.ndarray:
        """`[R]`: the mean over the splits, of weights of all images `[N, R]`."""
        return np.mean([ranking.auroc(weights[rows]) for rows, ranking in self.rankings], axis=0)


def map_figures(measured: Measured) -> Iterator[tuple[str, Estimate]]:
    """The figures of maps: means over the splits, without an interval."""
    nan, n = float("nan"), len(measured.tiles.whole)
    for metric in measured.maps[0] if measured.maps else ():
        mean = float(np.mean([one[metric].value for one in measured.maps]))
        yield metric, Estimate(mean, nan, nan, n, "mean over the splits")


def measure(
    splitting: str, methods: list[str], recipe: Recipe, splits: int, *, develop: bool = False
) -> Iterator[tuple[str, str, Estimate]]:
    """Method, metric and figure."""
    tiles = Tiles.load(recipe)
    found = {method: Measured(tiles) for method in methods}
    for seed in range(splits):
        number = seed + (100 if develop else 0)
        parts = tiles.parts(splitting, number, develop=develop)
        train, held = (_normal(tiles.whole.take(parts[part])) for part in ("train", "validation"))
        test = tiles.whole.take(parts["test"])
        for method, measured in found.items():
            score = fitted(method, recipe.override({"seed": number}), train, held)
            auroc = measured.add(parts["test"], score(test))
            print(f"split {number}, {method}: AUROC {auroc:.4f}", flush=True)
    n = len(tiles.whole)
    statistics = {method: measured.auroc for method, measured in found.items()}
    if len(methods) > 1:
        first, *others = methods
        for other in others:
            statistics[f"{first} minus {other}"] = lambda weights, other=other: (  # type: ignore[misc]
                found[first].auroc(weights) - found[other].auroc(weights)
            )
    for name, figure in bootstrap(statistics, n, tiles.whole.groups).items():
        yield name, "auroc", replace(figure, difference=" minus " in name)
    for method, measured in found.items():
        for metric, figure in map_figures(measured):
            yield method, metric, figure


def promise(folder: str) -> Iterator[Row]:
    """How often more scenes raise an alarm than was promised."""
    tiles = Tiles.load(Recipe().override({**LEARNING, "data.root": folder}))
    own = tiles.whole.take(np.flatnonzero(tiles.faultless))
    assert own.groups is not None
    share, mean = resplit(
        pixel_features(_images(own)),
        own.ids,
        own.groups,
        false_alarm=FALSE_ALARM,
        confidence=CONFIDENCE,
    )
    print(f"bound exceeded in {share}; mean rate of scenes {mean.value:.4f}")
    for metric, figure in (("bound exceeded", share), ("false_alarm_rate", mean)):
        yield row_of(
            figure,
            experiment=f"alarm of {100 * FALSE_ALARM:g} % on 5 neighbours of pixels",
            metric=metric,
            command=COMMAND.format("scene", "promise"),
            data=DATA,
            data_digest=tiles.digest[:16],
            split=f"scenes without a defect, {RESPLITS} splits",
            seed="0",
            **here(),
        )


def rows(splitting: str, method: str, folder: str, splits: int) -> Iterator[Row]:
    """Each figure as a row."""
    recipe = Recipe().override({**LEARNING, "data.root": folder})
    methods = ["nearest neighbour on pixels", "PCA of pixels"]
    if method != "pixels":
        methods = [method, *methods]
    tiles = Tiles.load(recipe)
    leaks = "" if splitting == "scene" else ", LEAKS"
    for experiment, metric, figure in measure(splitting, methods, recipe, splits):
        print(f"{experiment} {metric} {figure}", flush=True)
        if method != "pixels" and experiment in methods[1:]:
            continue  # they have rows of their own
        yield row_of(
            replace(figure, n_seeds=splits),  # a model for each split, whatever it is
            experiment=experiment,
            metric=metric,
            command=COMMAND.format(splitting, f"'{method}'")
            + ("" if splits == SPLITS else f" --splits {splits}"),
            data=DATA,
            data_digest=tiles.digest[:16],
            split=f"by {splitting}{leaks}, {splits} splits",
            seed="",
            note="the splits share 1,344 images",
            **here(),
        )


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("splitting", choices=["scene", "image"])
    parser.add_argument("method", help="such as synthetic, 'padim of rotation', pixels; promise")
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--splits", type=int, default=SPLITS)
    options = parser.parse_args(arguments)
    measured = (
        promise(options.data_dir)
        if options.method == "promise"
        else rows(options.splitting, options.method, options.data_dir, options.splits)
    )
    return append_each(PATH, measured, "tiles")


if __name__ == "__main__":
    sys.exit(main())
