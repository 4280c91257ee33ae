"""Detectors that know normal images only, as functions of features."""

from cnn_jax.anomaly.coreset import Coreset, greedy_coreset
from cnn_jax.anomaly.distances import (
    Detector,
    Mahalanobis,
    Neighbours,
    Reconstruction,
    fit_mahalanobis,
    fit_neighbours,
    fit_reconstruction,
)
from cnn_jax.anomaly.kept import Fitted, arrays_of, of_arrays
from cnn_jax.anomaly.neighbours import nearest
from cnn_jax.anomaly.patches import Padim, PatchCore, embed, fit_padim, fit_patchcore
from cnn_jax.anomaly.pictures import enlarged

__all__ = [
    "Coreset",
    "Detector",
    "Fitted",
    "Mahalanobis",
    "Neighbours",
    "Padim",
    "PatchCore",
    "Reconstruction",
    "arrays_of",
    "embed",
    "enlarged",
    "fit_mahalanobis",
    "fit_neighbours",
    "fit_padim",
    "fit_patchcore",
    "fit_reconstruction",
    "greedy_coreset",
    "nearest",
    "of_arrays",
]
