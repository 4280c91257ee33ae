"""The two figures every published one stands beside: nearest neighbour and linear.

Both see images resized to 32 × 32 pixels and nothing learned by a network. A network that
does not beat them has learned nothing that plain pixels do not show.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax.data.dataset import Dataset, Split
from cnn_jax.errors import DataError
from cnn_jax.evaluation.predictions import Predictions, predictions_type
from cnn_jax.training.linear import LinearFit, fit_linear

SIDE = 32
_IMAGES_AT_ONCE = 1024
# 120 MB of float32 similarities at a time.
_SIMILARITIES_AT_ONCE = 30_000_000


@dataclass(frozen=True, eq=False)
class Baseline:
    """What a simple classifier says about the splits it was not trained on.

    Attributes:
      name: `nearest neighbour` or `logistic regression`.
      predictions: split name -> predictions, for those of validation and test there are.
      note: one line for a table: how it was fitted, and on how many examples.
    """

    name: str
    predictions: dict[str, Predictions]
    note: str


def resized_pixels(images: np.ndarray) -> np.ndarray:
    """Images `[N, H, W, C]` as float32 `[N, 32·32·C]`: resized bilinearly with anti-aliasing.

    uint8 becomes 0..1; float32 is taken as it is.

    Raises:
      DataError: the images are volumes.
    """
    if images.ndim != 4:
        raise DataError(f"the baselines take images [N, H, W, C], not {list(images.shape)}")
    scaled = images / np.float32(255) if images.dtype == np.uint8 else images
    return np.asarray(_resize(scaled)).reshape(len(images), -1)


def pixel_features(images: np.ndarray) -> np.ndarray:
    """Images `[N, H, W, C]` as float32 `[N, 32·32·C]`: resized, mean-free and of unit length.

    The dot product of two rows is then the correlation of two images, blind to brightness and
    contrast. Images of one grey become zeros.

    Raises:
      DataError: the images are volumes.
    """
    pixels = resized_pixels(images)
    centred = pixels - pixels.mean(axis=1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    # The rounding of the mean leaves images of one grey with a small length.
    varied = length > 1e-5 * np.linalg.norm(pixels, axis=1, keepdims=True)
    return np.divide(centred, length, out=np.zeros_like(centred), where=varied)


def nearest_neighbour(dataset: Dataset, *, target: str = "label") -> Baseline:
    """1-nearest neighbour among the train images, by `pixel_features`.

    For classes (and soft targets, by their most likely class) the logits are the largest
    similarity to a train example of each class, -1 for a class without any, so that the
    predicted class is the neighbour's. Of equally near neighbours the first in the train split
    decides: its class is lifted by one unit in the last place. For multi-label targets the
    logits are +1 for the labels of the neighbour and -1 for the others.

    Args:
      dataset: with `train`, and with `validation` or `test`.
      target: name of the target.

    Raises:
      DataError: a split or the target is missing, or the images are volumes.
    """
    train, evaluated = _train_and_evaluated(dataset, target)
    references = read_features(train, pixel_features)
    labels = train.targets[target]
    predictions = {}
    for name, split in evaluated.items():
        queries = read_features(split, pixel_features)
        if dataset.kinds[target] == "multilabel":
            logits = _copied_labels(queries, references, labels)
        else:
            classes = labels if labels.ndim == 1 else labels.argmax(axis=1)
            logits = _similarity_by_class(
                queries, references, classes, len(dataset.classes[target])
            )
        predictions[name] = _predictions(dataset, name, target, logits)
    note = f"1-nearest neighbour by correlation of {SIDE} x {SIDE} pixels, {len(train)} examples"
    return Baseline("nearest neighbour", predictions, note)


def logistic_regression(
    dataset: Dataset,
    *,
    target: str = "label",
    penalties: tuple[float, ...] = (1.0, 0.1, 0.01, 0.001, 0.0001),
    max_train: int = 20_000,
    tolerance: float = 1e-4,
    max_iterations: int = 1000,
) -> Baseline:
    """Linear classifier on pixels; its L2 penalty is the best of a few on validation.

    Its inputs are `resized_pixels` less the mean train image, divided by one number: the
    standard deviation of all that remains. (Each pixel by its own would blow up a border that
    is nearly always black.) See `fit_linear` for what is minimised. The penalty with the lowest
    validation NLL is kept.

    Args:
      dataset: with `train` and `validation`, and usually `test`.
      target: name of the target.
      penalties: weights of the L2 penalty to try, from the largest on while validation improves.
      max_train: of more train examples than this a fixed random subset of so many is used, each
        class in its share; `Baseline.note` says so.
      tolerance, max_iterations: when each fit ends; see `fit_linear`. If the tolerance was not
        reached `Baseline.note` says so.

    Raises:
      DataError: a split or the target is missing, the images are volumes, or no penalties.
    """
    train, evaluated = _train_and_evaluated(dataset, target)
    if "validation" not in evaluated:
        raise DataError(f"{dataset.name!r} has no validation split to choose the L2 penalty on")
    if not penalties:
        raise DataError("no L2 penalties to choose from: give at least one")
    used = train.take(stratified_subset(train.targets[target], max_train))
    pixels = read_features(used, resized_pixels)
    mean = pixels.mean(axis=0)
    pixels -= mean
    scale = float(pixels.std()) or 1.0
    inputs = {
        name: (read_features(split, resized_pixels) - mean) / scale
        for name, split in evaluated.items()
    }
    labels = used.targets[target]
    wanted = _one_hot(labels, len(dataset.classes[target])) if labels.ndim == 1 else labels
    sigmoid = dataset.kinds[target] == "multilabel"

    def validation_nll(fit: LinearFit) -> float:
        logits = fit.logits(inputs["validation"])
        predictions = _predictions(dataset, "validation", target, logits)
        return float(predictions.negative_log_likelihood().mean())

    pixels /= scale
    best: LinearFit | None = None
    lowest = np.inf
    for penalty in sorted(penalties, reverse=True):
        # A smaller penalty begins where the larger one ended, and takes longer to fit; once
        # validation gets worse, still smaller ones are not tried.
        fit = fit_linear(pixels, wanted, penalty, sigmoid, tolerance, max_iterations, best)
        nll = validation_nll(fit)
        if best is not None and nll >= lowest:
            break
        best, lowest = fit, nll
    assert best is not None  # there is at least one penalty
    note = f"L2 penalty {best.penalty:g} chosen on validation, {SIDE} x {SIDE} pixels, "
    note += f"{len(used)} examples"
    if len(used) < len(train):
        note += f" (a fixed subset of {len(train)}, each class in its share)"
    if best.excess > tolerance:
        note += f"; not converged: {best.excess:.1e} above the minimum "
        note += f"(iterations: {best.iterations})"
    predictions = {
        name: _predictions(dataset, name, target, best.logits(x)) for name, x in inputs.items()
    }
    return Baseline("logistic regression", predictions, note)


@jax.jit
def _resize(images: jax.Array) -> jax.Array:
    n, _, _, channels = images.shape
    return jax.image.resize(images, (n, SIDE, SIDE, channels), "bilinear", antialias=True)


@jax.jit
def _similarity(queries: jax.Array, references: jax.Array) -> jax.Array:
    return jnp.matmul(queries, references.T, precision="highest")


def _similarity_by_class(
    queries: np.ndarray, references: np.ndarray, labels: np.ndarray, k: int
) -> np.ndarray:
    """float32 `[Q, K]`: similarity of each query to the nearest reference of each class."""
    order = np.argsort(labels, kind="stable")
    present, starts = np.unique(labels[order], return_index=True)
    by_class = jnp.asarray(references[order])
    logits = np.full((len(queries), k), -1, np.float32)
    for rows in _chunks(len(queries), max(1, _SIMILARITIES_AT_ONCE // len(references))):
        similarity = np.asarray(_similarity(queries[rows], by_class))
        largest = similarity.max(axis=1, keepdims=True)
        logits[rows, present] = np.maximum.reduceat(similarity, starts, axis=1)
        first = np.where(similarity == largest, order, len(order)).min(axis=1)
        logits[rows][np.arange(len(first)), labels[first]] = np.nextafter(
            largest[:, 0], np.float32(np.inf)
        )
    return logits


def _copied_labels(queries: np.ndarray, references: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """float32 `[Q, K]`: +1 for the labels of the nearest reference, -1 for the others."""
    logits = np.empty((len(queries), labels.shape[1]), np.float32)
    on_device = jnp.asarray(references)
    for rows in _chunks(len(queries), max(1, _SIMILARITIES_AT_ONCE // len(references))):
        nearest = np.asarray(_similarity(queries[rows], on_device)).argmax(axis=1)
        logits[rows] = np.where(labels[nearest] > 0.5, 1, -1)
    return logits


def _train_and_evaluated(dataset: Dataset, target: str) -> tuple[Split, dict[str, Split]]:
    if "train" not in dataset.splits or len(dataset.splits["train"]) == 0:
        raise DataError(f"{dataset.name!r} has no train examples to compare with")
    evaluated = {
        name: dataset.splits[name] for name in ("validation", "test") if name in dataset.splits
    }
    if not evaluated:
        raise DataError(f"{dataset.name!r} has neither a validation nor a test split")
    if target not in dataset.classes:
        known = ", ".join(dataset.classes)
        raise DataError(f"{dataset.name!r} has no target {target!r}: choose one of {known}")
    return dataset.splits["train"], evaluated


def _chunks(n: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def read_features(split: Split, function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """`function` of all images `[n, H, W, C]` of a split, read a chunk at a time."""
    parts = [
        function(split.read_images(np.arange(rows.start, rows.stop)))
        for rows in _chunks(len(split), _IMAGES_AT_ONCE)
    ]
    return np.concatenate(parts)


def _one_hot(labels: np.ndarray, k: int) -> np.ndarray:
    return (labels[:, np.newaxis] == np.arange(k)).astype(np.float32)


def stratified_subset(targets: np.ndarray, size: int) -> np.ndarray:
    """Positions, ascending, of `size` examples (or all): each class in its share, always the same.

    Multi-label and soft targets are drawn without regard to their classes.
    """
    n = len(targets)
    if n <= size:
        return np.arange(n)
    shuffled = np.random.default_rng(0).permutation(n)
    if targets.ndim == 1:
        shuffled = shuffled[np.argsort(targets[shuffled], kind="stable")]
    # Evenly spaced among examples in the order of their class: each class in its share.
    return np.sort(shuffled[np.arange(size) * n // size])


def _predictions(dataset: Dataset, name: str, target: str, logits: np.ndarray) -> Predictions:
    split = dataset.splits[name]
    return predictions_type(name)(
        split=name,
        ids=split.ids,
        targets=split.targets[target],
        logits=logits,
        classes=dataset.classes[target],
        kind=dataset.kinds[target],
        groups=split.groups,
    )
