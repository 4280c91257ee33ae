"""Embeddings without a network, to stand beside those of a run: pixels, and eigenfaces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cnn_jax.data import Dataset, Split
from cnn_jax.evaluation import EmbeddingPredictions, embeddings_type, recognition_score
from cnn_jax.training.baselines import SIDE, pixel_features, read_features
from cnn_jax.training.recognition import subjects_of

# Of more images of the train part a random subset is taken: their covariance is known by then.
_MOST_IMAGES = 5_000


@dataclass(frozen=True, eq=False)
class EmbeddingBaseline:
    """Embeddings of validation and test part by a simple method.

    Attributes:
      name: of the method.
      note: how it was made, one sentence.
      predictions: part -> its embeddings.
    """

    name: str
    note: str
    predictions: Mapping[str, EmbeddingPredictions]


def pixels(dataset: Dataset) -> EmbeddingBaseline:
    """The pixels themselves, `pixel_features`: the cosine of two is their correlation.

    Args:
      dataset: with validation and test part.

    Raises:
      DataError: the images are volumes.
    """
    found = {name: _embedded(dataset, name, _pixels_of(s)) for name, s in _evaluated(dataset)}
    note = f"Correlation of {SIDE} x {SIDE} pixels; nothing is learned."
    return EmbeddingBaseline("pixels", note, found)


def eigenfaces(dataset: Dataset) -> EmbeddingBaseline:
    """Principal components of the train part's pixels (Turk and Pentland 1991), whitened.

    Each component is divided by its standard deviation over the train part before cosines are
    taken (the Mahalanobis cosine, the best of the distances that Moon and Phillips 2001 compare).
    How many are used, of powers of two and all there are, is the one with the lowest equal error
    rate on the validation part, the fewest of equally good ones.

    Args:
      dataset: with train, validation and test part.

    Raises:
      DataError: the images are volumes.
    """
    train = dataset.splits["train"]
    if len(train) > _MOST_IMAGES:
        chosen = np.random.default_rng(0).choice(len(train), _MOST_IMAGES, replace=False)
        train = train.take(np.sort(chosen))
    learned = _pixels_of(train).astype(np.float64)
    mean = learned.mean(axis=0)
    _, lengths, directions = np.linalg.svd(learned - mean, full_matrices=False)
    # Rounding leaves what should be 0 with a little, which whitening would blow up.
    known = int((lengths > 1e-5 * max(lengths[0], 1e-12)).sum())
    whitened = directions[:known].T * (np.sqrt(len(learned)) / lengths[:known])
    projected = {name: (_pixels_of(split) - mean) @ whitened for name, split in _evaluated(dataset)}
    counts = [2**k for k in range(1, known.bit_length()) if 2**k < known] + [max(1, known)]

    def of(name: str, count: int) -> EmbeddingPredictions:
        return _embedded(dataset, name, _directed(projected[name][:, :count]))

    errors = [1 - recognition_score(of("validation", count))["accuracy"] for count in counts]
    best = counts[int(np.argmin(errors))]
    note = f"{best} whitened principal components of {SIDE} x {SIDE} pixels, chosen on validation."
    return EmbeddingBaseline("eigenfaces", note, {name: of(name, best) for name in projected})


def _evaluated(dataset: Dataset) -> list[tuple[str, Split]]:
    return [(name, dataset.splits[name]) for name in ("validation", "test")]


def _pixels_of(split: Split) -> np.ndarray:
    return _directed(read_features(split, pixel_features))


def _directed(rows: np.ndarray) -> np.ndarray:
    """The rows, with ones in place of those that are 0 and have no direction.

    Images of one grey are; they are then alike each other, and unlike all others.
    """
    return np.where((rows == 0).all(axis=1, keepdims=True), np.ones_like(rows), rows)


def _embedded(dataset: Dataset, name: str, rows: np.ndarray) -> EmbeddingPredictions:
    split = dataset.splits[name]
    return embeddings_type(name)(
        split=name,
        ids=split.ids,
        subjects=subjects_of(dataset, split),
        embeddings=rows.astype(np.float32),
    )
