"""What is learned: the loss, and the figures that tell how well."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax.errors import ModelError
from cnn_jax.evaluation import (
    CalibrationPredictions,
    Estimate,
    Predictions,
    check_calibration,
    classification_metrics,
)

Batch = Mapping[str, jax.Array]
Hyper = Mapping[str, jax.Array]


class Task(Protocol):
    """What the step minimises and what evaluation reports."""

    def loss(
        self, outputs: Any, batch: Batch, hyper: Hyper, *, key: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Loss and weight of each example, float32 `[B]`; the step minimises
        sum(weight * loss * valid) / sum(weight * valid) over the global batch."""
        ...

    def correct(self, outputs: Any, batch: Batch) -> jax.Array:
        """How right each example is, float32 `[B]` in 0..1."""
        ...

    def predictions(self, outputs: Any) -> dict[str, jax.Array]:
        """What is kept of every example, one array: `logits` float32 `[B, K]`,
        `probabilities` of pixels (see `segmentation.Segmentation`), or `embeddings` float32
        `[B, D]` (see `recognition.Recognition`)."""
        ...

    def score(self, predictions: Any) -> dict[str, float]:
        """Mean `loss` and `accuracy`, in float64 on the host, without intervals.

        What early stopping and the choice of the best state see: `CalibrationPredictions`,
        `MaskPredictions` or `CalibrationEmbeddings` of the validation part; never the test part.
        """
        ...

    def metrics(self, predictions: Any) -> dict[str, Estimate]:
        """Every figure of the task, with its interval, of `Predictions`, `MaskPredictions` or
        `EmbeddingPredictions`."""
        ...


# Attributes by which a task holds the one that it extends.
_INNER = ("softmax", "learned")


def innermost(task: Any) -> Any:
    """The task that has the class weights and priors, within a margin or `Recognition`."""
    inner = next((getattr(task, name) for name in _INNER if hasattr(task, name)), None)
    return task if inner is None else innermost(inner)


def reweighted(task: Any, values: Mapping[str, Any]) -> Any:
    """A task whose innermost one has other `class_weights` or `log_priors`."""
    inner = {n: reweighted(getattr(task, n), values) for n in _INNER if hasattr(task, n)}
    return dataclasses.replace(task, **(inner or values))


def logits_of(outputs: Any) -> jax.Array:
    """The logits `[B, K]` of a model's output, float32.

    Raises:
      ModelError: the output is neither `[B, K]` nor a dict with such `logits`.
    """
    logits = outputs.get("logits") if isinstance(outputs, Mapping) else outputs
    if logits is None or jnp.ndim(logits) != 2:
        shape = "nothing called 'logits'" if logits is None else f"shape {list(jnp.shape(logits))}"
        raise ModelError(f"the model must return logits [B, K], or a dict with them; got {shape}")
    return logits.astype(jnp.float32)


def embedding_of(outputs: Any) -> jax.Array:
    """`embedding`, or else the logits, float32 `[B, D]`."""
    given = outputs.get("embedding") if isinstance(outputs, Mapping) else None
    return logits_of(outputs if given is None else given)


@dataclass(frozen=True)
class Classification:
    """One of K classes: cross-entropy with label smoothing, hard or soft targets.

    loss = - sum_k q_k (1 - p_k)^g log p_k with p = softmax(logits), q = (1 - e) target + e / K
    and g = `hyper["focal"]` where `focal` (Lin et al. 2017), else 0. With `log_priors` the loss
    is that of logits + `hyper["logit_adjustment"]` * log_priors (Menon et al. 2021, eq. 10).

    Each of the `levels` adds `hyper["hierarchy"]` times its own cross-entropy, - log P, P being
    the sum of p over the classes of the true one's group. As log p = log P + log (p / P), a mistake
    within the group costs the second alone, one across also (1 + weight) times the first: the
    hierarchical cross-entropy of Bertinetto et al. 2020 with these weights.

    Attributes:
      num_outputs: K.
      class_weights: weight of an example by its class, or None for 1; soft targets take
        the mean weight under the target.
      focal: whether examples that are right already count less.
      log_priors: logarithm of each class's share in the training part, or None for no logit
        adjustment.
      levels: for each level of a hierarchy the number of the group of each class.
    """

    num_outputs: int
    class_weights: tuple[float, ...] | None = None
    focal: bool = False
    log_priors: tuple[float, ...] | None = None
    levels: tuple[tuple[int, ...], ...] = ()

    def loss(
        self, outputs: Any, batch: Batch, hyper: Hyper, *, key: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Cross-entropy and weight, float32 `[B]`."""
        log_p = jax.nn.log_softmax(_adjusted(logits_of(outputs), self.log_priors, hyper))
        target = _mixed(batch, self._dense)
        smooth = hyper["label_smoothing"]
        q = (1 - smooth) * target + smooth / self.num_outputs
        if self.class_weights is None:
            weight = jnp.ones(len(log_p), jnp.float32)
        else:
            weight = target @ jnp.asarray(self.class_weights, jnp.float32)
        if self.focal:
            q = q * _doubt(log_p, hyper["focal"])
        loss = -(q * log_p).sum(axis=1)
        for level in self.levels:
            loss += hyper["hierarchy"] * _of_groups(log_p, target, np.asarray(level))
        return loss, weight

    def correct(self, outputs: Any, batch: Batch) -> jax.Array:
        """1 where the largest logit is the (largest) target."""
        label = batch["label"]
        label = label if label.ndim == 1 else label.argmax(axis=1)
        return (logits_of(outputs).argmax(axis=1) == label).astype(jnp.float32)

    def predictions(self, outputs: Any) -> dict[str, jax.Array]:
        """The logits."""
        return {"logits": logits_of(outputs)}

    def score(self, predictions: CalibrationPredictions) -> dict[str, float]:
        """Mean cross-entropy (no smoothing, no weights) and accuracy."""
        check_calibration(predictions, "a choice of state")
        accuracy = (predictions.predicted() == predictions.labels()).mean()
        loss = predictions.negative_log_likelihood().mean()
        return {"loss": float(loss), "accuracy": float(accuracy)}

    def metrics(self, predictions: Predictions) -> dict[str, Estimate]:
        """See `evaluation.classification_metrics`."""
        return classification_metrics(predictions)

    def _dense(self, label: jax.Array) -> jax.Array:
        if label.ndim == 2:
            return label
        return jax.nn.one_hot(label, self.num_outputs, dtype=jnp.float32)


@dataclass(frozen=True)
class MultiLabel:
    """Any of K labels: binary cross-entropy, averaged over the labels.

    loss = mean_k [q_k (1 - p_k)^g softplus(-z_k) + (1 - q_k) p_k^g softplus(z_k)] with
    p = sigmoid(z), q = (1 - e) target + e / 2 and g as in `Classification`; with `log_priors`,
    which are then log odds, z is adjusted as there.

    Attributes:
      num_outputs: K.
      class_weights: weight of each label within the mean, or None for 1.
      focal: whether labels that are right already count less.
      log_priors: log odds of each label in the training part, or None for no logit adjustment.
    """

    num_outputs: int
    class_weights: tuple[float, ...] | None = None
    focal: bool = False
    log_priors: tuple[float, ...] | None = None

    def loss(
        self, outputs: Any, batch: Batch, hyper: Hyper, *, key: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Binary cross-entropy and weight 1, float32 `[B]`."""
        logits = _adjusted(logits_of(outputs), self.log_priors, hyper)
        smooth = hyper["label_smoothing"]
        q = (1 - smooth) * _mixed(batch, lambda label: label) + smooth / 2
        if self.focal:
            yes, no = jax.nn.softplus(-logits), jax.nn.softplus(logits)
            gamma = hyper["focal"]
            loss = q * _doubt(-yes, gamma) * yes + (1 - q) * _doubt(-no, gamma) * no
        else:
            loss = jax.nn.softplus(logits) - q * logits
        if self.class_weights is not None:
            loss = loss * jnp.asarray(self.class_weights, jnp.float32)[None, :]
        return loss.mean(axis=1), jnp.ones(len(logits), jnp.float32)

    def correct(self, outputs: Any, batch: Batch) -> jax.Array:
        """Share of the labels on the right side of probability 1/2."""
        return ((logits_of(outputs) > 0) == (batch["label"] > 0.5)).astype(jnp.float32).mean(axis=1)

    def predictions(self, outputs: Any) -> dict[str, jax.Array]:
        """The logits."""
        return {"logits": logits_of(outputs)}

    def score(self, predictions: CalibrationPredictions) -> dict[str, float]:
        """Mean binary cross-entropy and mean label accuracy."""
        check_calibration(predictions, "a choice of state")
        loss = predictions.negative_log_likelihood().mean()
        accuracy = ((predictions.logits > 0) == (predictions.targets > 0.5)).mean()
        return {"loss": float(loss), "accuracy": float(accuracy)}

    def metrics(self, predictions: Predictions) -> dict[str, Estimate]:
        """See `evaluation.classification_metrics`."""
        return classification_metrics(predictions)


def _of_groups(log_p: jax.Array, target: jax.Array, group: np.ndarray) -> jax.Array:
    """Cross-entropy `[B]` of groups of classes, whose probabilities are sums."""
    member = group[:, np.newaxis] == np.arange(group.max() + 1)
    summed = jax.nn.logsumexp(log_p[:, :, jnp.newaxis], axis=1, where=member)
    return -((target @ member.astype(np.float32)) * summed).sum(axis=1)


def _adjusted(logits: jax.Array, log_priors: tuple[float, ...] | None, hyper: Hyper) -> jax.Array:
    """The logits that the loss sees; what is predicted is without the adjustment."""
    if log_priors is None:
        return logits
    return logits + hyper["logit_adjustment"] * jnp.asarray(log_priors, jnp.float32)[None, :]


def _doubt(log_p: jax.Array, gamma: jax.Array) -> jax.Array:
    """(1 - p)^gamma; p is kept from 1, where the derivative has a pole for gamma < 1."""
    return jnp.maximum(-jnp.expm1(log_p), 1e-7) ** gamma


def _mixed(batch: Batch, dense: Any) -> jax.Array:
    """The target `[B, K]`, with mixup's second label in it where there is one."""
    target: jax.Array = dense(batch["label"])
    if "mix_label" not in batch:
        return target
    share = batch["mix_share"][:, None]
    return (1 - share) * target + share * dense(batch["mix_label"])
