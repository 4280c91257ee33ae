"""`Detection`: what a detector and its alarm do on a test part, and that it was looked at."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cnn_jax.data import Dataset, Split
from cnn_jax.decision import Alarm, PromiseCheck, check_promise
from cnn_jax.detecting.detector import (
    DESCRIPTION,
    Detector,
    read_description,
    write_description,
)
from cnn_jax.detecting.looking import look_at
from cnn_jax.detecting.scorer import Method, Scorer, fit_scorer
from cnn_jax.detecting.tiles import Tiles, files_of
from cnn_jax.errors import DataError, EvaluationError, RunError
from cnn_jax.evaluation import (
    AnomalyScores,
    CalibrationScores,
    Estimate,
    Predictions,
    anomaly_map_metrics,
    anomaly_metrics,
    au_pimo,
    paired_difference,
    scores_type,
)
from cnn_jax.whole_files import whole_folder

if TYPE_CHECKING:
    from cnn_jax.new_images import Images


@dataclass(frozen=True, eq=False)
class Detection:
    """A detector, what it says of a test part, and whether its alarm keeps its promise there.

    Attributes:
      dataset: with all its images; the detector has seen the normal ones of `train` alone.
      detector: which scores images, and its alarm.
      test: scores of all images of the test part.
      promise: whether the test part can be one for which the alarm's promise is kept; None where
        that cannot be checked.
      baselines: name -> scores of a simpler method on the test part.
      map_figures: how well its maps tell where the test part is anomalous; none where the data
        have no masks or the detector no maps.
    """

    dataset: Dataset
    detector: Detector
    test: AnomalyScores
    promise: PromiseCheck | None
    baselines: dict[str, AnomalyScores]
    map_figures: dict[str, Estimate]

    @property
    def normal(self) -> str:
        """The class that is normal."""
        return self.detector.normal

    @property
    def method(self) -> Method:
        """What was fitted."""
        return self.detector.method

    @property
    def features(self) -> str:
        """What it looks at."""
        return self.detector.features

    @property
    def alarm(self) -> Alarm:
        """Fitted on `calibration`."""
        return self.detector.alarm

    @property
    def calibration(self) -> CalibrationScores:
        """Scores of the normal images of the validation part."""
        return self.detector.calibration

    @property
    def promise_text(self) -> str:
        """Whether the promise can be kept on the test part, in words."""
        return self.detector.verdict

    def score(self, images: Images) -> np.ndarray:
        """Scores of new images, float64 `[N]`; see `Detector.predict`."""
        return self.detector.score(images)

    @functools.cached_property
    def figures(self) -> dict[str, Estimate]:
        """The figures on the test part; see `anomaly_metrics` and `anomaly_map_metrics`."""
        return {**self.alarm.figures(self.test), **self.map_figures}

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

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write detector, scores and figures into a new folder; returns `detection.json`.

        The folder appears whole or not at all. `Detector.load` reads it.

        Raises:
          RunError: the folder is there already, or cannot be written.
        """
        check_new(folder)
        folder = Path(folder)
        try:
            with whole_folder(folder) as partial:
                described = self.detector.write(partial)
                self.test.save(partial / "scores-test.npz")
                for name, scores in self.baselines.items():
                    scores.save(partial / f"scores-test-{name.replace(' ', '-')}.npz")
                figures = {name: one.to_dict() for name, one in self.figures.items()}
                write_description(partial, {**described, "figures": figures})
        except OSError as error:
            raise RunError(f"cannot write to {str(folder)!r}: {error.strerror}") from error
        return folder / DESCRIPTION


def check_new(folder: str | os.PathLike[str]) -> None:
    """Raise `RunError` if a folder to write to is there already."""
    if Path(folder).exists():
        raise RunError(f"{str(folder)!r} is there already: choose another --out")


def judge(
    detector: Detector,
    dataset: Dataset,
    *,
    files: Mapping[str, Path] | None = None,
    command: str = "cnn_jax.detecting.judge",
) -> Detection:
    """What a detector and its alarm do on the test part, beside simpler methods.

    It is logged: in the folder that the detector was loaded from, or in the one it is saved to.

    Args:
      detector: fitted on these data.
      dataset: the data it was fitted for, with train and test part.
      files: id -> file of its images, for a detector of windows; see `data.original_files`.
      command: what the log says.

    Raises:
      DataError: other data, whose images it may have seen or not: score these by `predict`.
      RunError: the log cannot be written.
    """
    if dataset.digest != detector.data_digest:
        raise DataError(
            f"the detector was fitted for {detector.data_name!r} (digest "
            f"{detector.data_digest[:12]}), not for {dataset.name!r} ({dataset.digest[:12]}): take "
            "the same data, or score images alone, by predict"
        )
    whole = dataset.splits["test"]
    normal = dataset.classes["label"].index(detector.normal)
    anomalous = whole.targets["label"] != normal
    if detector.tiles is None:
        scores = detector.scorer.of(whole)
    else:
        scores = window_scores(detector.scorer, detector.tiles, whole, files, detector.image_shape)
    test = scores_type("test")(
        split="test", ids=whole.ids, scores=scores, anomalous=anomalous, groups=whole.groups
    )
    promise, verdict = _verdict(detector.alarm, test)
    train = dataset.splits["train"]
    seen = train.take(np.flatnonzero(train.targets["label"] == normal))
    return Detection(
        dataset=dataset,
        detector=detector.judged(len(whole), command, verdict),
        test=test,
        promise=promise,
        baselines=_baselines(seen, whole, anomalous),
        # Of pictures in windows there are maps, but of many sizes.
        map_figures={}
        if detector.tiles is not None
        else _map_figures(detector.scorer, whole, anomalous),
    )


def window_scores(
    scorer: Scorer,
    tiles: Tiles,
    split: Split,
    files: Mapping[str, Path] | None,
    image_shape: tuple[int, ...],
) -> np.ndarray:
    """Scores of the pictures of a split, the highest of their windows, float64 `[N]`.

    Raises:
      DataError: an image of the split is no file of its own, or cannot be read.
    """
    paths = files_of(split, files)
    looks = look_at(scorer, paths, image_shape, "crop", tiles)
    return np.array([look.score for look in looks])


def _map_figures(scorer: Scorer, split: Split, anomalous: np.ndarray) -> dict[str, Estimate]:
    """Pixel AUROC, AU-PRO and AU-PIMO, as far as there is something marked and something not."""
    if split.masks is None or not split.masks.any() or (maps := scorer.maps(split)) is None:
        return {}
    masks = split.masks > 0
    if masks.all():
        return {}
    found = anomaly_map_metrics(maps, masks, split.groups)
    normal = ~anomalous & ~masks.any(axis=(1, 2))
    if normal.any():
        found["au_pimo"] = au_pimo(maps, masks, split.groups, normal=normal).mean
    return found


def scores_of(scorer: Scorer, split: Split, part: str, anomalous: np.ndarray) -> AnomalyScores:
    """Scores of all images of a part, and what of it is anomalous, bool `[N]`."""
    return scores_type(part)(
        split=part,
        ids=split.ids,
        scores=scorer.of(split),
        anomalous=anomalous,
        groups=split.groups,
    )


def _verdict(alarm: Alarm, test: AnomalyScores) -> tuple[PromiseCheck | None, str]:
    try:
        promise = check_promise(alarm, test)
    except EvaluationError as error:  # groups of several, or no normal image in test
        return None, f"Whether it is kept on test cannot be checked: {error}."
    return promise, promise.text


def _baselines(seen: Split, whole: Split, anomalous: np.ndarray) -> dict[str, AnomalyScores]:
    """Scores of simple methods on pixels; none for volumes."""
    if len(whole.image_shape) != 3:
        return {}
    simple: dict[str, Method] = {
        "PCA of pixels": "pca",
        "nearest neighbour on pixels": "neighbours",
    }
    return {
        name: scores_of(fit_scorer(method, seen, k=1), whole, "test", anomalous)
        for name, method in simple.items()
    }


def uses_beside(folder: str | os.PathLike[str]) -> dict[str, int]:
    """Folder -> how often it looked at the test part of the same data; those next to this one.

    The best of several detectors by their figures on test has flattered figures.

    Raises:
      RunError: the folder itself is that of no detection.
    """
    folder = Path(folder)
    digest = read_description(folder)["data"]["digest"]
    found = {}
    for path in sorted(folder.parent.glob(f"*/{DESCRIPTION}")):
        if path.parent.samefile(folder):
            continue
        try:
            values = read_description(path.parent)
            if values["data"]["digest"] == digest:
                found[str(path.parent)] = len(values["test_uses"])
        except (RunError, KeyError, TypeError):
            continue  # damaged, or of another version: it cannot be told
    return found


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
