"""Histograms of oriented gradients and a linear support vector machine."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from cnn_jax.data import Dataset, Split
from cnn_jax.evaluation import Predictions, predictions_type
from cnn_jax.training.baselines import Baseline, read_features
from experiments.results import ResultsError

# Dalal and Triggs (2005), whose cells have 8 pixels: digits of 28 are finer.
HOG = {"orientations": 9, "pixels_per_cell": (4, 4), "cells_per_block": (2, 2)}
PENALTIES = (0.01, 0.1, 1.0, 10.0)  # C: the smaller, the wider the margin


def hog_and_svm(dataset: Dataset) -> Baseline:
    """The C that has the best accuracy on validation, of several the smallest.

    Args:
      dataset: with `train`, `validation` and `test`.

    Raises:
      ResultsError: scikit-image or scikit-learn is not installed.
    """
    try:
        from sklearn.svm import LinearSVC
    except ImportError as error:
        raise ResultsError(_missing("scikit-learn")) from error
    train = dataset.splits["train"]
    features, labels = _features(train), train.targets["label"]
    best: Any = None
    highest = -1.0
    for penalty in PENALTIES:
        machine = LinearSVC(C=penalty, dual="auto", max_iter=10_000, random_state=0)
        machine.fit(features, labels)
        answers = _answers(machine, dataset, "validation")
        right = float((answers.predicted() == answers.labels()).mean())
        if right > highest:
            best, highest = machine, right
    predictions = {name: _answers(best, dataset, name) for name in ("validation", "test")}
    note = f"C {best.C:g} chosen on validation, {features.shape[1]} features"
    return Baseline("HOG and linear SVM", predictions, f"{note}, {len(train)} examples")


def histograms(images: np.ndarray) -> np.ndarray:
    """Images `[N, H, W, C]` as float32 `[N, features]`.

    Raises:
      ResultsError: scikit-image is not installed.
    """
    try:
        from skimage.feature import hog
    except ImportError as error:
        raise ResultsError(_missing("scikit-image")) from error
    each = [hog(image, channel_axis=-1, block_norm="L2-Hys", **HOG) for image in images]
    return np.asarray(each, np.float32)


@functools.lru_cache(maxsize=4)  # validation and test are asked for again and again
def _features(split: Split) -> np.ndarray:
    return read_features(split, histograms)


def _answers(machine: Any, dataset: Dataset, name: str) -> Predictions:
    split, classes = dataset.splits[name], dataset.classes["label"]
    margins = machine.decision_function(_features(split))
    if margins.ndim == 1:  # of two classes
        margins = np.stack([-margins, margins], axis=1)
    logits = np.full((len(split), len(classes)), margins.min() - 1, np.float32)
    logits[:, machine.classes_] = margins
    return predictions_type(name)(
        split=name,
        ids=split.ids,
        targets=split.targets["label"],
        logits=logits,
        classes=classes,
        kind="class",
        groups=split.groups,
    )


def _missing(package: str) -> str:
    return f'{package} is not installed: pip install "cnn_jax[test]", or {package} alone'
