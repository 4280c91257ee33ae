"""`detect`: learn what is normal, draw the line of an alarm, and judge both."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import numpy as np

from cnn_jax import exported
from cnn_jax.classifier import Classifier
from cnn_jax.data import Dataset, Split
from cnn_jax.data.digest import dataset_digest
from cnn_jax.decision import fit_alarm
from cnn_jax.detecting.detection import Detection, judge, window_scores
from cnn_jax.detecting.detector import Detector
from cnn_jax.detecting.scorer import OF_MAPS, OF_NETWORK, Method, fit_scorer
from cnn_jax.detecting.tiles import Tiles, files_of, windows_of
from cnn_jax.errors import DataError, RecipeError
from cnn_jax.evaluation import CalibrationScores
from cnn_jax.pretraining import Objective, Pretrained, pretrain
from cnn_jax.recipe import Recipe
from cnn_jax.run import Run
from cnn_jax.training.progress import Reporter

PIXELS = "pixels"
# What networks can learn from without labels, and their features then be used.
LEARNED: tuple[Objective, ...] = ("rotation", "cutpaste", "contrastive")


def detect(
    dataset: Dataset,
    normal: str,
    *,
    method: Method = "neighbours",
    features: str = PIXELS,
    false_alarm: float = 0.05,
    confidence: float = 0.95,
    recipe: Recipe | None = None,
    tiles: Tiles | None = None,
    files: Mapping[str, Path] | None = None,
    reporter: Reporter | None = None,
    folder: str | os.PathLike[str] | None = None,
    command: str = "cnn_jax.detect",
) -> Detection:
    """Learn what is normal, draw the line of an alarm, and judge both on the test part.

    The detector sees the normal images of the train part; the alarm is drawn on those of the
    validation part; labels of other images are looked at in judging alone.

    Args:
      dataset: images with one class each.
      normal: the class that is normal; all others are anomalous.
      method: `neighbours` (mean distance to the five nearest), `mahalanobis`, `pca` (distance from
        principal components), `padim` or `patchcore` (of parts of images), `autoencoder`
        (squared error of its reconstruction), or `synthetic` (a U-Net that has learned to find
        defects made by computer in normal images: the highest logit of a pixel).
      features: `pixels` (32×32, mean-free, of unit length); what a network has learned from the
        normal images without labels (`rotation`, `cutpaste`, `contrastive`); or the folder of a
        run, or of `cnn-jax export` (`model.safetensors`), whose network is used: it may have seen
        what is not normal, and labels. One that was exported does not tell what it has seen: see to
        it that these images are not among that. What is a network itself has its own.
      false_alarm, confidence: of the alarm; see `decision.fit_alarm`.
      recipe: how a network learns; of its data fields `data.fit` alone is looked at, by which
        new pictures are brought to size. The last state is taken and no epoch is chosen by
        validation, whose normal images are there to draw the alarm.
      tiles: look at the pictures in windows at their own resolution, each as anomalous as its
        most anomalous window; the alarm is of pictures all the same.
      files: id -> file of each image, for windows; see `data.original_files`.
      reporter: what shows how that goes.
      folder: where the checkpoints of that lie, to go on after an interruption.
      command: what the log of uses of the test part says.

    Raises:
      DataError: no such class, or a part without normal images.
      RecipeError: a method that does not fit the features.
      EvaluationError: too few normal images for the promise.
    """
    if method not in get_args(Method):
        raise RecipeError(f"no method {method!r}: there are {', '.join(get_args(Method))}")
    if method in OF_NETWORK and features != PIXELS:
        raise RecipeError(f"{method} learns features of its own: leave features out")
    parts = _normal_parts(dataset, normal)
    held = parts["validation"]
    _check_enough(held, false_alarm, confidence)
    learning = (recipe or Recipe()).override({"train.select": "last", "train.patience": 0})
    if features not in (PIXELS, *LEARNED):
        _check_unseen(features, held, dataset)
    learned, shape = parts, dataset.image_shape
    if tiles is not None:
        shape = (tiles.size, tiles.size, shape[-1])
        learned = {
            part: windows_of(files_of(split, files), split, shape[-1], tiles)
            for part, split in parts.items()
        }
    regions = dataset.regions if tiles is None else ()  # windows are learned from without masks
    seen = dataset.replace(splits=learned, digest=dataset_digest(learned), regions=regions)
    network, built_by = _network(seen, method, features, learning, reporter, folder)
    scorer = fit_scorer(method, learned["train"], network)
    calibration = CalibrationScores(
        split="validation",
        ids=held.ids,
        scores=scorer.of(held)
        if tiles is None
        else window_scores(scorer, tiles, held, files, shape),
        anomalous=np.zeros(len(held), bool),
        groups=held.groups,
    )
    detector = Detector(
        method=method,
        features="its own" if method in OF_NETWORK else features,
        normal=normal,
        image_shape=shape,
        fit=learning.data.fit,
        tiles=tiles,
        data_name=dataset.name,
        data_digest=dataset.digest,
        scorer=scorer,
        recipe=built_by,
        calibration=calibration,
        alarm=fit_alarm(calibration, false_alarm=false_alarm, confidence=confidence),
    )
    return judge(detector, dataset, files=files, command=command)


def _check_enough(split: Split, false_alarm: float, confidence: float) -> None:
    """Raise, before any training, where no alarm could keep its promise; see `fit_alarm`."""
    scores = CalibrationScores("validation", split.ids, np.zeros(len(split)), groups=split.groups)
    fit_alarm(scores, false_alarm=false_alarm, confidence=confidence)


def _normal_parts(dataset: Dataset, normal: str) -> dict[str, Split]:
    """The normal images of the train and the validation part."""
    classes = dataset.classes["label"]
    if dataset.kinds["label"] != "class":
        raise DataError(f"{dataset.name!r} has {dataset.kinds['label']} labels: no class is normal")
    if normal not in classes:
        raise DataError(f"{dataset.name!r} has no class {normal!r}; it has {', '.join(classes)}")
    parts = {}
    for part in ("train", "validation"):
        split = dataset.splits[part]
        rows = np.flatnonzero(split.targets["label"] == classes.index(normal))
        if not len(rows):
            raise DataError(f"no image of {normal!r} in the {part} part of {dataset.name!r}")
        parts[part] = split.take(rows)
    return parts


def _network(
    seen: Dataset,
    method: Method,
    features: str,
    recipe: Recipe,
    reporter: Reporter | None,
    folder: str | os.PathLike[str] | None,
) -> tuple[Pretrained | None, Recipe | None]:
    """The network whose features are taken, and its recipe; neither for pixels."""
    if method in OF_NETWORK:
        objective: Objective | None = OF_NETWORK[method]
    elif features == PIXELS:
        if method in OF_MAPS:
            raise RecipeError(
                f"{method} compares what a network sees in parts of images: give features, one of "
                f"{', '.join(LEARNED)} or the folder of a network"
            )
        return None, None
    else:
        objective = next((known for known in LEARNED if known == features), None)
    if objective is None:
        return _of_run(features, seen.splits["train"])
    return pretrain(recipe, seen, objective, folder=folder, reporter=reporter), recipe


def _of_run(place: str, train: Split) -> tuple[Pretrained, Recipe]:
    """The network of a run, or one that was exported, as if learned here, and its recipe."""
    if exported.is_one(place):
        classifier = Classifier.load(place)
    elif (Path(place) / "run.json").exists():
        classifier = Run.load(place).classifier
    else:
        raise RecipeError(
            f"features {place!r} are neither {PIXELS}, {', '.join(LEARNED)} nor a folder of a run "
            "or of what 'cnn-jax export' wrote"
        )
    if classifier.image_shape != train.image_shape:
        raise RecipeError(
            f"the network of {place!r} takes images of {list(classifier.image_shape)}, and these "
            f"are {list(train.image_shape)}: set data.image_size and data.channels alike"
        )
    network = Pretrained.of(
        classifier.model, classifier.variables, classifier.preprocess, classifier.image_shape
    )
    return network, classifier.recipe


def _check_unseen(place: str, calibration: Split, dataset: Dataset) -> None:
    """Refuse a run whose network learned from images that the alarm is drawn on or judged by.

    Images are known by their ids, in data of the same name.
    """
    if not (Path(place) / "run.json").exists():
        return  # `_of_run` says what it may be
    run = Run.load(place)
    if run.info["data"]["name"] != dataset.name:
        return
    known = set(run.ids("train"))
    if run.recipe.train.select == "best" or run.recipe.train.patience:
        known |= set(run.ids("validation"))
    own = [*calibration.ids.tolist(), *dataset.splits["test"].ids.tolist()]
    if shared := sum(name in known for name in own):
        raise RecipeError(
            f"the network of {place!r} learned from, or was chosen by, {shared} of the {len(own)} "
            "images that the alarm is drawn on or judged by: train it on other images, or learn "
            f"features here ({', '.join(LEARNED)}). Images are known by their ids in data of one "
            f"name, {dataset.name!r}: other images want another name"
        )
