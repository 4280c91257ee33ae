"""Figures with intervals from predictions; knows no model and no data set."""

from cnn_jax.evaluation.by_class import ClassRow, per_class
from cnn_jax.evaluation.classification import (
    Reliability,
    classification_metrics,
    confusion_matrix,
    reliability,
)
from cnn_jax.evaluation.comparison import paired_difference
from cnn_jax.evaluation.estimate import Estimate
from cnn_jax.evaluation.fate import ClassErrors, Fate
from cnn_jax.evaluation.intervals import bootstrap, wilson
from cnn_jax.evaluation.predictions import Predictions, log_probabilities

__all__ = [
    "ClassErrors",
    "ClassRow",
    "Estimate",
    "Fate",
    "Predictions",
    "Reliability",
    "bootstrap",
    "classification_metrics",
    "confusion_matrix",
    "log_probabilities",
    "paired_difference",
    "per_class",
    "reliability",
    "wilson",
]
