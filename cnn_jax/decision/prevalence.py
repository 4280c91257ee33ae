"""Probabilities for a population in which the classes occur at other rates than in training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation.predictions import P


def adjust_prevalence(
    predictions: P, to: Mapping[str, float], *, trained: Mapping[str, float]
) -> P:
    """Predictions whose probabilities hold where the classes have other shares.

    By Bayes' rule, if what images of a class look like stays the same and only the shares
    change: p'(k | x) ∝ p(k | x) π'_k / π_k (Saerens, Latinne and Decaestecker 2002), which adds
    log π'_k - log π_k to the logits. With several labels each has its own share, and
    log odds(π') - log odds(π) is added.

    Args:
      predictions: calibrated ones; divide the logits by their temperature first.
      to: class name -> its share where the model is to be used; for one class each they sum to 1.
      trained: class name -> the share that the probabilities hold for: that in the training
        part, but equal shares after `loss.logit_adjustment = 1`, balanced class weights or
        balanced sampling.

    Raises:
      EvaluationError: a class is missing or unknown, or shares are not in 0..1 or do not sum to 1.
    """
    new = _shares(to, predictions.classes, predictions.kind != "multilabel")
    old = _shares(trained, predictions.classes, predictions.kind != "multilabel")
    shift = np.log(new) - np.log(old)
    if predictions.kind == "multilabel":
        shift -= np.log1p(-new) - np.log1p(-old)
    logits = predictions.logits.astype(np.float64) + shift
    return replace(predictions, logits=logits.astype(np.float32))


def _shares(given: Mapping[str, float], classes: tuple[str, ...], one_each: bool) -> np.ndarray:
    if set(given) != set(classes):
        raise EvaluationError(f"shares are needed of each of {', '.join(classes)}, and no other")
    shares = np.array([given[name] for name in classes], np.float64)
    if not ((shares > 0) & (shares < 1)).all():
        raise EvaluationError(f"shares of classes lie between 0 and 1, not at {shares.tolist()}")
    if one_each and not np.isclose(shares.sum(), 1, atol=1e-6):
        raise EvaluationError(f"shares of classes sum to 1, not to {shares.sum():g}")
    return shares
