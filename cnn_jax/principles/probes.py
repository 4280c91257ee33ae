"""Linear probes: how well the classes can be told apart, linearly, after each layer.

Alain & Bengio 2016, *Understanding intermediate layers using linear classifier probes*: a linear
classifier learns from the features of a layer, and the layer from nothing. Its accuracy rises with
the depth if what later layers add is what the task is about.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from cnn_jax import ops
from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation import Estimate
from cnn_jax.evaluation.intervals import Units, share_of
from cnn_jax.training.linear import LinearFit, fit_linear

_TOLERANCE = 1e-3  # nats above the minimum at which a fit may end

Examples = tuple[Any, Any]  # features [N, ...] and labels int [N]


@dataclass(frozen=True)
class Probe:
    """A linear classifier on the features of one layer.

    Attributes:
      accuracy: on test, with an interval over its images or their groups.
      penalty: weight of the L2 penalty, chosen on validation.
      inputs: numbers that it sees of each image.
      excess: how far above its minimum, at most, the objective ended, in nats.
    """

    accuracy: Estimate
    penalty: float
    inputs: int
    excess: float


def linear_probe(
    train: Examples,
    validation: Examples,
    test: Examples,
    *,
    cells: int = 4,
    penalties: Sequence[float] = (1.0, 0.1, 0.01, 0.001),
    groups: np.ndarray | None = None,
    level: float = 0.95,
) -> Probe:
    """Fit a linear classifier to features, and see how often it is right on test.

    Maps are averaged over a grid of `cells` x `cells` parts first, so that early layers with many
    positions do not have the advantage of many inputs; maps with fewer positions than that keep all
    of them. Inputs are then centred and scaled to a standard deviation of 1 on train. Of the L2
    penalties that with the lowest loss on validation is taken, the largest of equals; see
    `training.linear.fit_linear` for what is minimised.

    Args:
      train, validation, test: features `[N, C]` or `[N, h, w, C]`, and labels int `[N]`.
      cells: along each axis; 1 averages over all positions.
      penalties: to choose from.
      groups: of the test images, for the interval.
      level: of the interval.

    Raises:
      EvaluationError: parts without images, with other numbers of labels or other shapes, features
        that are not finite, fewer than two classes in train, no penalties or no cells.
    """
    parts = (("train", train), ("validation", validation), ("test", test))
    inputs = {name: grid_means(features, cells) for name, (features, _) in parts}
    labels = {name: np.asarray(given) for name, (_, given) in parts}
    for name, values in inputs.items():
        if labels[name].shape != (len(values),) or not values.size:
            raise EvaluationError(
                f"{name} has {len(values)} images and labels {list(labels[name].shape)}: a probe "
                "needs a label for each, and one image at least"
            )
        if values.shape[1] != inputs["train"].shape[1]:
            raise EvaluationError(f"features of {name} have another shape than those of train")
        if not np.isfinite(values).all():
            raise EvaluationError(f"features of {name} are not finite")
    classes = np.unique(np.concatenate(list(labels.values())))
    if len(np.unique(labels["train"])) < 2 or not penalties:
        raise EvaluationError("a probe needs two classes in train, and a penalty to try")
    mean, deviation = inputs["train"].mean(axis=0), inputs["train"].std(axis=0)
    # What is the same for all train images says nothing, and dividing by its rounding would.
    scale = np.where(deviation > 1e-6 * np.abs(mean).max(initial=1e-30), deviation, np.inf)
    inputs = {name: ((each - mean) / scale).astype(np.float32) for name, each in inputs.items()}
    wanted = (labels["train"][:, np.newaxis] == classes).astype(np.float32)
    truth = {name: np.searchsorted(classes, each) for name, each in labels.items()}
    best: LinearFit | None = None
    lowest, start = np.inf, None
    for penalty in sorted(penalties, reverse=True):
        start = fit_linear(inputs["train"], wanted, penalty, tolerance=_TOLERANCE, start=start)
        loss = _loss(start.logits(inputs["validation"]), truth["validation"])
        if loss < lowest:
            best, lowest = start, loss
    assert best is not None  # there is a penalty, and the loss is finite
    right = best.logits(inputs["test"]).argmax(axis=1) == truth["test"]
    units = Units.of(len(right), groups)
    accuracy = share_of(right, units, np.ones(len(right), bool), level=level)
    return Probe(
        replace(accuracy, percent=True), best.penalty, inputs["test"].shape[1], best.excess
    )


def grid_means(features: Any, cells: int) -> np.ndarray:
    """float64 `[N, D]`: maps averaged over a grid of at most `cells` x `cells` parts, flattened.

    Args:
      features: `[N, C]`, which stay as they are, or `[N, h, w, C]`.
      cells: along each axis; see `ops.adaptive_avg_pool`.

    Raises:
      EvaluationError: other features, or no cells.
    """
    values = np.asarray(features)
    if values.ndim not in (2, 4) or cells < 1:
        raise EvaluationError(
            f"a probe is of features [N, C] or [N, h, w, C] and one cell at least, not of "
            f"{list(values.shape)} and {cells}"
        )
    if values.ndim == 4 and values.size:
        grid = tuple(min(cells, side) for side in values.shape[1:3])
        values = np.asarray(ops.adaptive_avg_pool(jnp.asarray(values, jnp.float32), grid))
    width = math.prod(values.shape[1:])
    return values.reshape(len(values), width).astype(np.float64)


def _loss(logits: np.ndarray, truth: np.ndarray) -> float:
    """Mean cross-entropy in nats."""
    logits = logits - logits.max(axis=1, keepdims=True)
    of_truth = logits[np.arange(len(truth)), truth]
    return float((np.log(np.exp(logits).sum(axis=1)) - of_truth).mean())
