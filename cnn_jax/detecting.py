"""Finding what is not normal: a detector that has seen normal images only, and its alarm."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import jax
import numpy as np

from cnn_jax import anomaly, nn
from cnn_jax.data import Dataset, Split
from cnn_jax.data.digest import dataset_digest
from cnn_jax.decision import Alarm, PromiseCheck, check_promise, fit_alarm
from cnn_jax.errors import DataError, EvaluationError, ModelError, RecipeError, RunError
from cnn_jax.evaluation import (
    AnomalyScores,
    CalibrationScores,
    Estimate,
    Predictions,
    anomaly_metrics,
    paired_difference,
    scores_type,
)
from cnn_jax.pretraining import Objective, Pretrained, pretrain
from cnn_jax.recipe import Recipe
from cnn_jax.run import Run
from cnn_jax.training.baselines import pixel_features
from cnn_jax.training.progress import Reporter
from cnn_jax.whole_files import write_whole

Method = Literal["neighbours", "mahalanobis", "pca", "padim", "patchcore", "autoencoder"]
OF_MAPS = ("padim", "patchcore")
PIXELS = "pixels"
# What networks can learn from without labels, and their features then be used.
LEARNED: tuple[Objective, ...] = ("rotation", "cutpaste", "contrastive")

Score = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Detection:
    """A detector, what it says of validation and test part, and its alarm.

    Attributes:
      dataset: with all its images; the detector has seen the normal ones of `train` alone.
      normal: the class that is normal.
      method, features: how it works.
      score: images of the data set's shape, uint8 or float32, to float64 `[N]`.
      calibration: scores of the normal images of the validation part.
      test: scores of all images of the test part.
      alarm: fitted on `calibration`.
      promise: whether the test part can be one for which the alarm's promise is kept; None where
        that cannot be checked.
      promise_text: that in words.
      baselines: name -> scores of a simpler method on the test part.
    """

    dataset: Dataset
    normal: str
    method: Method
    features: str
    score: Score
    calibration: CalibrationScores
    test: AnomalyScores
    alarm: Alarm
    promise: PromiseCheck | None
    promise_text: str
    baselines: dict[str, AnomalyScores]

    @functools.cached_property
    def figures(self) -> dict[str, Estimate]:
        """The figures on the test part; see `evaluation.anomaly_metrics`."""
        return self.alarm.figures(self.test)

    def gains(self) -> dict[str, tuple[Estimate, Estimate]]:
        """Baseline -> its AUROC on test, and that of the detector minus it, paired by image.

        Nothing where the test part has only normal images, or none.
        """
        if "auroc" not in self.figures:
            return {}
        return {
            name: (anomaly_metrics(scores)["auroc"], auroc_gain(self.test, scores))
            for name, scores in self.baselines.items()
        }

    def save(self, folder: str | os.PathLike[str], command: str) -> Path:
        """Write the scores and the figures into a new folder; returns `detection.json`.

        Raises:
          RunError: the folder is there already, or cannot be written.
        """
        check_new(folder)
        folder = Path(folder)
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            raise RunError(f"cannot make {str(folder)!r}: {error.strerror}") from error
        self.calibration.save(folder / "scores-validation.npz")
        self.test.save(folder / "scores-test.npz")
        for name, scores in self.baselines.items():
            scores.save(folder / f"scores-test-{name.replace(' ', '-')}.npz")
        values = {
            "command": command,
            "data": {"name": self.dataset.name, "digest": self.dataset.digest},
            "normal": self.normal,
            "method": self.method,
            "features": self.features,
            "alarm": {
                name: getattr(self.alarm, name)
                for name in ("threshold", "n", "k", "false_alarm", "confidence")
            },
            "promise": self.promise_text,
            "figures": {name: one.to_dict() for name, one in self.figures.items()},
        }
        path = folder / "detection.json"
        write_whole(path, json.dumps(values, indent=1) + "\n")
        return path


def check_new(folder: str | os.PathLike[str]) -> None:
    """Raise `RunError` if a folder to write to is there already."""
    if Path(folder).exists():
        raise RunError(f"{str(folder)!r} is there already: choose another --out")


def detect(
    dataset: Dataset,
    normal: str,
    *,
    method: Method = "neighbours",
    features: str = PIXELS,
    false_alarm: float = 0.05,
    confidence: float = 0.95,
    recipe: Recipe | None = None,
    reporter: Reporter | None = None,
    folder: str | os.PathLike[str] | None = None,
) -> Detection:
    """Learn what is normal, draw the line of an alarm, and judge both on the test part.

    The detector sees the normal images of the train part; the alarm is drawn on those of the
    validation part; labels of other images are looked at in judging alone.

    Args:
      dataset: images with one class each.
      normal: the class that is normal; all others are anomalous.
      method: `neighbours` (mean distance to the five nearest), `mahalanobis`, `pca` (distance from
        principal components), `padim` or `patchcore` (of parts of images), or `autoencoder`
        (squared error of its reconstruction).
      features: `pixels` (32×32, mean-free, of unit length); what a network has learned from the
        normal images without labels (`rotation`, `cutpaste`, `contrastive`); or the folder of a
        run, whose network is used: it may have seen what is not normal, and labels. An
        autoencoder has its own.
      false_alarm, confidence: of the alarm; see `decision.fit_alarm`.
      recipe: how a network learns; its data fields are not looked at. The last state is taken
        and no epoch is chosen by validation, whose normal images are there to draw the alarm.
      reporter: what shows how that goes.
      folder: where the checkpoints of that lie, to go on after an interruption.

    Raises:
      DataError: no such class, or a part without normal images.
      RecipeError: a method that does not fit the features.
      EvaluationError: too few normal images for the promise.
    """
    if method not in get_args(Method):
        raise RecipeError(f"no method {method!r}: there are {', '.join(get_args(Method))}")
    if method == "autoencoder" and features != PIXELS:
        raise RecipeError("an autoencoder learns features of its own: leave features out")
    parts = _normal_parts(dataset, normal)
    check_enough(parts["validation"], false_alarm, confidence)
    learning = (recipe or Recipe()).override({"train.select": "last", "train.patience": 0})
    if features not in (PIXELS, *LEARNED):
        _check_unseen(features, parts["validation"], dataset)
    seen = dataset.replace(splits=parts, digest=dataset_digest(parts))
    score = _detector(seen, method, features, learning, reporter, folder)
    calibration = _scores(score, parts["validation"], "validation")
    assert isinstance(calibration, CalibrationScores)
    alarm = fit_alarm(calibration, false_alarm=false_alarm, confidence=confidence)
    whole = dataset.splits["test"]
    anomalous = whole.targets["label"] != dataset.classes["label"].index(normal)
    test = _scores(score, whole, "test", anomalous)
    promise: PromiseCheck | None = None
    try:
        promise = check_promise(alarm, test)
        text = promise.text
    except EvaluationError as error:  # groups of several, or no normal image in test
        text = f"Whether it is kept on test cannot be checked: {error}."
    simpler = {"PCA of pixels": "pca", "nearest neighbour on pixels": "neighbours"}
    baselines = {
        name: _scores(_of_pixels(parts["train"], plain, k=1), whole, "test", anomalous)
        for name, plain in simpler.items()
        if len(dataset.image_shape) == 3
    }
    return Detection(
        dataset=dataset,
        normal=normal,
        method=method,
        features="its own" if method == "autoencoder" else features,
        score=score,
        calibration=calibration,
        test=test,
        alarm=alarm,
        promise=promise,
        promise_text=text,
        baselines=baselines,
    )


def auroc_gain(a: AnomalyScores, b: AnomalyScores) -> Estimate:
    """The AUROC of a minus that of b on the same images, paired; see `paired_difference`."""
    return paired_difference(_as_predictions(a), _as_predictions(b), "auroc")


def _as_predictions(scores: AnomalyScores) -> Predictions:
    """Scores as two classes whose second logit grows with the score; for its order alone."""
    ranks = np.unique(scores.scores, return_inverse=True)[1].astype(np.float32)
    # Ranks, since float32 would make ties of scores that differ in later digits.
    logits = np.stack([np.zeros_like(ranks), ranks / max(len(ranks), 1)], axis=1)
    return Predictions(
        split=scores.split,
        ids=scores.ids,
        targets=scores.truth().astype(np.int32),
        logits=logits,
        classes=("normal", "anomalous"),
        groups=scores.groups,
    )


def check_enough(split: Split, false_alarm: float, confidence: float) -> None:
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


def _scores(
    score: Score, split: Split, part: str, anomalous: np.ndarray | None = None
) -> AnomalyScores:
    return scores_type(part)(
        split=part,
        ids=split.ids,
        scores=score(split.read_images(np.arange(len(split)))),
        anomalous=np.zeros(len(split), bool) if anomalous is None else anomalous,
        groups=split.groups,
    )


def _detector(
    seen: Dataset,
    method: Method,
    features: str,
    recipe: Recipe,
    reporter: Reporter | None,
    folder: str | os.PathLike[str] | None,
) -> Score:
    """What scores images, fitted on the normal ones of the train part."""

    def learned(objective: Objective) -> Pretrained:
        return pretrain(recipe, seen, objective, folder=folder, reporter=reporter)

    train_part = seen.splits["train"]

    if method == "autoencoder":
        return learned("reconstruction").reconstruction_error
    if features == PIXELS:
        if method in OF_MAPS:
            raise RecipeError(
                f"{method} compares what a network sees in parts of images: give features, one of "
                f"{', '.join(LEARNED)} or a run folder"
            )
        return _of_pixels(train_part, method)
    objective = next((known for known in LEARNED if known == features), None)
    network = learned(objective) if objective else _of_run(features, train_part)
    train = train_part.read_images(np.arange(len(train_part)))
    if method in OF_MAPS:
        at = _stages(network)

        def maps(images: np.ndarray) -> np.ndarray:
            found = network.features(images, at)
            return anomaly.embed([found[path] for path in at])

        known = maps(train)
        fitted = anomaly.fit_padim(known) if method == "padim" else anomaly.fit_patchcore(known)
        return lambda images: fitted.score(maps(images))
    of_vectors = _fit(method, network.embedding(train), unit_length=True)
    return lambda images: of_vectors.score(network.embedding(images))


def _stages(network: Pretrained) -> tuple[str, ...]:
    """Paths of the two smallest sizes of maps that the network's own stages give, large first.

    Of stages with maps of one size the last by name: what comes after a stage is nearer to what
    the network was trained for.
    """
    shape = jax.ShapeDtypeStruct((1, *network.image_shape), np.float32)
    by_size: dict[int, str] = {}
    for path, output in nn.tap_paths(network.model, network.variables, shape).items():
        if getattr(output, "ndim", 0) == 4 and "/" not in path:
            by_size[output.shape[1] * output.shape[2]] = path
    if not by_size:
        raise ModelError(f"no stage of {type(network.model).__name__} gives maps [B, h, w, C]")
    return tuple(by_size[size] for size in sorted(by_size, reverse=True)[-2:])


def _of_pixels(split: Split, method: str, k: int = 5) -> Score:
    train = split.read_images(np.arange(len(split)))
    fitted = _fit(method, pixel_features(train), k=k)
    return lambda images: fitted.score(pixel_features(images))


def _fit(
    method: str, known: np.ndarray, *, k: int = 5, unit_length: bool = False
) -> anomaly.Detector:
    if method == "mahalanobis":
        return anomaly.fit_mahalanobis(known)
    if method == "pca":
        return anomaly.fit_reconstruction(known)
    return anomaly.fit_neighbours(known, k=min(k, len(known)), unit_length=unit_length)


def _of_run(place: str, train: Split) -> Pretrained:
    """The network of a run, as if it had been learned here."""
    if not (Path(place) / "run.json").exists():
        raise RecipeError(
            f"features {place!r} are neither {PIXELS}, {', '.join(LEARNED)} nor a run folder"
        )
    run = Run.load(place)
    classifier = run.classifier
    if classifier.image_shape != train.image_shape:
        raise RecipeError(
            f"the network of {place!r} takes images of {list(classifier.image_shape)}, and these "
            f"are {list(train.image_shape)}: set data.image_size and data.channels alike"
        )
    return Pretrained.of(
        classifier.model, classifier.variables, classifier.preprocess, classifier.image_shape
    )


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
            f"features here ({', '.join(LEARNED)})"
        )
