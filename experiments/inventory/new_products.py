"""New products: known by one picture, without learning again; and told from those that are known.

    python -m experiments.inventory.new_products --data-dir DIR --out FOLDER [--folds 1,2]
        [--learn photographs]

The 81 products are dealt out in four, at random. A network learns three fourths of them, from
their training photographs and their iconic images (`--learn photographs`: not from these). Figures
are of the official test part.

- New products by one icon: each test photograph of the others is compared, by the cosine of pooled
  features, with their iconic images (20), or with one training photograph of each, ten draws of it;
  or with those of all 81 products, of which the known ones have the mean of their training
  photographs.
- Unknown products: who is to find the known ones only. Scores are the cosine with each known
  product's mean, the network's logits, or its probabilities; of pixels the nearest photograph.

Intervals resample products. FOLDER keeps a run for each fold; those that are there are not trained
again. Appends to results.csv beside this file.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cnn_jax import Run, data
from cnn_jax.data import Dataset, Split
from cnn_jax.data.digest import dataset_digest
from cnn_jax.data.order import epoch_order
from cnn_jax.evaluation import (
    Estimate,
    Predictions,
    Searches,
    classification_metrics,
    make_templates,
    open_set_metrics,
    paired_difference,
    unit_embeddings,
)
from cnn_jax.evaluation.predictions import log_probabilities
from cnn_jax.recipe import Recipe
from cnn_jax.recognising import Embedder
from cnn_jax.training.baselines import pixel_features
from experiments.inventory.grocery import DATA, LEARNING, PATH, icons
from experiments.kept import kept_run
from experiments.results import Row
from experiments.rows import append_each, reported

FOLDS, DRAWS = 4, 10
COPIES = 6  # of each icon in the train part: a sixth of what a product has of photographs
COMMAND = (
    'python -m experiments.inventory.new_products --data-dir "$CNN_JAX_DATA" --out FOLDER '
    "--folds {} --learn {}"
)
FPIRS = (0.1, 0.01)
Features = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Fold:
    """What is known and what is new.

    Attributes:
      number: of the fold.
      whole: all 81 products.
      learned: the known ones alone, numbered anew, with their icons or without.
      new: int64 `[20]`, labels in `whole` of the others.
      icons: uint8 `[81, H, W, C]`, by label.
    """

    number: int
    whole: Dataset
    learned: Dataset
    new: np.ndarray
    icons: np.ndarray

    @property
    def known(self) -> np.ndarray:
        """int64 `[61]`, labels in `whole`."""
        return np.setdiff1d(np.arange(len(self.icons)), self.new)

    def of(self, part: str, products: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Images, labels and ids of some products in one part."""
        split = self.whole.splits[part]
        rows = np.flatnonzero(np.isin(split.targets["label"], products))
        return split.read_images(rows), split.targets["label"][rows].astype(int), split.ids[rows]


def fold_of(whole: Dataset, pictures: np.ndarray, number: int, *, with_icons: bool) -> Fold:
    """One of the four.

    Args:
      whole: the data set.
      pictures: uint8 `[81, H, W, C]`, the icons by label.
      number: 1 to 4.
      with_icons: whether the icons of known products are learned from.
    """
    count = len(whole.classes["label"])
    new = np.sort(epoch_order(count, seed=0, epoch=0)[number - 1 :: FOLDS])
    known = np.setdiff1d(np.arange(count), new)
    names = tuple(whole.classes["label"][k] for k in known.tolist())
    splits = {part: _of_known(split, known) for part, split in whole.splits.items()}
    if with_icons:
        splits["train"] = _with_icons(splits["train"], pictures[known])
    learned = whole.replace(
        splits=splits,
        classes={"label": names},
        kinds={"label": "class"},
        digest=dataset_digest(splits),
        notes=(*whole.notes, f"{len(known)} of {count} products, fold {number} of {FOLDS}."),
    )
    return Fold(number, whole, learned, new, pictures)


def _of_known(split: Split, known: np.ndarray) -> Split:
    kept = split.take(np.flatnonzero(np.isin(split.targets["label"], known)))
    labels = np.searchsorted(known, kept.targets["label"]).astype(np.int32)
    return replace(kept, targets={"label": labels})


def _with_icons(train_part: Split, pictures: np.ndarray) -> Split:
    """Each icon so many times among the photographs."""
    label = np.tile(np.arange(len(pictures), dtype=np.int32), COPIES)
    ids = np.array([f"icon/{k}/{n}" for n in range(COPIES) for k in range(len(pictures))])
    rows = np.arange(len(train_part))
    grouped = train_part.groups is not None
    return Split(
        images=np.concatenate([train_part.read_images(rows), pictures[label]]),
        targets={"label": np.concatenate([train_part.targets["label"], label])},
        ids=np.concatenate([train_part.ids, ids]),
        groups=np.concatenate([train_part.groups, ids]) if grouped else None,
    )


def compared(
    queries: np.ndarray, labels: np.ndarray, ids: np.ndarray, known: np.ndarray, of: np.ndarray
) -> Predictions:
    """Which of some templates each image is nearest to, as predictions with cosines for logits.

    Args:
      queries: float `[N, D]`, features.
      labels, ids: `[N]`, products in all, and ids.
      known: float `[G, D]`, features of the templates, in the order of `of`.
      of: int64 `[G]`, ascending, the product of each.
    """
    cosine = unit_embeddings(queries) @ unit_embeddings(known).T
    return Predictions(
        split="test",
        ids=ids,
        targets=np.searchsorted(of, labels).astype(np.int32),
        logits=cosine.astype(np.float32),
        classes=tuple(f"product {n}" for n in range(len(of))),
        groups=np.array([str(label) for label in labels]),
    )


def pooled(parts: list[Predictions]) -> Predictions:
    """Those of several folds, whose templates may differ in number."""
    most = max(part.logits.shape[1] for part in parts)
    logits = [
        np.pad(part.logits, ((0, 0), (0, most - part.logits.shape[1])), constant_values=-2.0)
        for part in parts
    ]
    groups = [part.groups for part in parts if part.groups is not None]
    return Predictions(
        split="test",
        ids=np.concatenate([part.ids for part in parts]),
        targets=np.concatenate([part.targets for part in parts]),
        logits=np.concatenate(logits),
        classes=tuple(f"product {n}" for n in range(most)),
        groups=np.concatenate(groups),
    )


def enrolled(fold: Fold, features: Features) -> Iterator[tuple[str, Predictions]]:
    """What new products are taken for, by each way to enrol them."""
    images, labels, ids = fold.of("test", fold.new)
    queries, iconic = features(images), features(fold.icons)
    yield "one icon, among the new", compared(queries, labels, ids, iconic[fold.new], fold.new)
    shots = []
    training, of, _ = fold.of("train", fold.new)
    learned_from = features(training)
    for draw in range(DRAWS):
        order = epoch_order(len(of), seed=draw, epoch=0)
        first = np.array([order[of[order] == product][0] for product in fold.new])
        again = np.array([f"{one} {draw}" for one in ids])
        shots.append(compared(queries, labels, again, learned_from[first], fold.new))
    yield "one photograph, among the new", pooled(shots)
    every = np.arange(len(fold.icons))
    templates = np.zeros((len(every), iconic.shape[1]))
    templates[fold.known] = _means(fold, features)
    templates[fold.new] = unit_embeddings(iconic[fold.new])
    yield "one icon, among all", compared(queries, labels, ids, templates, every)


def _means(fold: Fold, features: Features) -> np.ndarray:
    """Templates `[61, D]` of the known products."""
    images, labels, _ = fold.of("train", fold.known)
    names = np.array([f"{label:04}" for label in labels])
    return make_templates(features(images), names, unit_first=True).embeddings


def searched(fold: Fold, run: Run, features: Features) -> Iterator[tuple[str, Searches]]:
    """How each test image scores with each known product."""
    everything = np.arange(len(fold.icons))
    images, labels, ids = fold.of("test", everything)
    logits = run.classifier.logits(images)[1].astype(np.float64)
    unit = unit_embeddings(features(images))
    pixels, learned = (pixel_features(each) for each in (images, fold.of("train", fold.known)[0]))
    of = fold.of("train", fold.known)[1]
    alike = pixels.astype(np.float64) @ learned.T
    nearest = np.stack([alike[:, of == product].max(axis=1) for product in fold.known], axis=1)
    named = np.array([f"{label:04}" for label in labels])
    for name, scores in (
        ("cosine of the network", unit @ _means(fold, features).T),
        ("logits of the network", logits),
        ("probabilities of the network", np.exp(log_probabilities(logits, "class"))),
        ("nearest neighbour on pixels", nearest),
    ):
        yield (
            name,
            Searches.of_scores(
                scores,
                split="test",
                ids=np.array([f"{one} {fold.number}" for one in ids]),
                subjects=named,
                gallery=np.array([f"{label:04}" for label in fold.known]),
            ),
        )


def united(parts: list[Searches]) -> Searches:
    """Those of several folds."""
    names = ("ids", "subjects", "mated", "scores", "above", "ties")
    rows = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return Searches(split="test", gallery=parts[0].gallery, **rows)


def measure(folds: list[tuple[Fold, Run]]) -> Iterator[tuple[str, str, Estimate]]:
    """Method, metric and figure."""
    answers: dict[str, dict[str, list[Predictions]]] = {}
    searches: dict[str, list[Searches]] = {}
    for fold, run in folds:
        learned = Embedder(run.classifier)
        for of, features in (("network", learned), ("pixels", pixel_features)):
            for way, predictions in enrolled(fold, features):
                answers.setdefault(way, {}).setdefault(of, []).append(predictions)
        for name, found in searched(fold, run, learned):
            searches.setdefault(name, []).append(found)
    for way, each in answers.items():
        whole = {of: pooled(parts) for of, parts in each.items()}
        for of, predictions in whole.items():
            yield f"{way}: {of}", "accuracy", classification_metrics(predictions)["accuracy"]
        gain = paired_difference(whole["network"], whole["pixels"], "accuracy")
        yield f"{way}: network minus pixels", "accuracy", gain
    for name, parts in searches.items():
        figures = open_set_metrics(united(parts), fpirs=FPIRS)
        for metric, figure in figures.items():
            yield f"unknown products: {name}", metric, figure


def rows(folder: str, out: Path, numbers: list[int], learn: str) -> Iterator[Row]:
    """Each figure of the folds together as a row."""
    whole = data.load(DATA, data_dir=folder)
    pictures, names = icons(Path(folder) / DATA, whole)
    order = [names.tolist().index(name) for name in whole.classes["label"]]
    folds = []
    for number in numbers:
        fold = fold_of(whole, pictures[order], number, with_icons=learn != "photographs")
        run = kept_run(Recipe().override(LEARNING), fold.learned, out / f"{learn}-{number}")
        print(f"fold {number}, known: {run.metrics['test']['accuracy']}", flush=True)
        folds.append((fold, run))
    told = ",".join(map(str, numbers))
    for experiment, metric, figure in measure(folds):
        fixed = {"command": COMMAND.format(told, learn), "seed": "0"}
        split = f"new products, {len(numbers)} of {FOLDS} folds, learned from {learn}"
        yield reported(figure, whole, experiment, metric, split, **fixed)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--folds", default="1,2,3,4")
    parser.add_argument("--learn", choices=["photographs", "both"], default="both")
    options = parser.parse_args(arguments)
    numbers = [int(number) for number in options.folds.split(",")]
    measured = rows(options.data_dir, options.out, numbers, options.learn)
    return append_each(PATH, measured, "new_products")


if __name__ == "__main__":
    sys.exit(main())
