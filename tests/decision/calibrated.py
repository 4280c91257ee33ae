"""Predictions that need no calibration, which tests then spoil."""

import numpy as np
from scipy.special import expit, softmax

from cnn_jax.evaluation import CalibrationPredictions, Predictions


def calibrated(kind="class", n=4000, k=3, seed=0, split="validation"):
    """Predictions whose probabilities are those the targets were drawn with."""
    generator = np.random.default_rng(seed)
    logits = (1.5 * generator.normal(size=(n, k))).astype(np.float32)
    if kind == "multilabel":
        targets = (generator.random((n, k)) < expit(logits)).astype(np.float32)
    elif kind == "soft":
        targets = softmax(logits, axis=1)
    else:
        cumulative = softmax(logits.astype(np.float64), axis=1).cumsum(axis=1)
        targets = (cumulative > generator.random((n, 1))).argmax(axis=1).astype(np.int32)
    ids = np.array([f"{split}/{i}" for i in range(n)])
    made = CalibrationPredictions if split == "validation" else Predictions
    return made(split, ids, targets, logits, tuple("abcdefgh"[:k]), kind)
