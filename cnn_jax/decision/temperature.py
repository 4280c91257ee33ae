"""Temperature scaling: one number that makes probabilities mean what they say."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation.predictions import Predictions

LOWEST, HIGHEST = 0.05, 20.0


@dataclass(frozen=True)
class Temperature:
    """What divides the logits, and how it was found.

    Attributes:
      value: the temperature; above 1 the model was overconfident.
      fitted_on: name of the split it was fitted on.
      n: number of examples of that split.
      nll_before, nll_after: mean negative log-likelihood on that split, in nats, at
        temperature 1 and at `value`.
      at_bound: whether `value` is an end of the range searched, so that the data ask for a
        more extreme one (as perfectly separated data do).
    """

    value: float
    fitted_on: str
    n: int
    nll_before: float
    nll_after: float
    at_bound: bool


def fit_temperature(predictions: Predictions) -> Temperature:
    """The temperature in 0.05..20 that minimises the mean NLL (Guo et al., 2017).

    The targets are taken for 1 - 1 / (n + 2) certain, not for certain (Platt, 1999): where
    every one of n examples is right, the plain NLL would only fall with T, and promise that
    no error will ever be made. With many examples this changes nothing. Soft targets are
    taken as they are.

    The NLL is convex in 1/T, so the minimum is found by bounded scalar search over log T and
    compared with both ends. If no temperature is better than 1 (all logits equal) the answer
    is 1. A temperature changes no predicted class.

    Args:
      predictions: of the validation split; of any kind.

    Raises:
      EvaluationError: the predictions are of the test split, or there are none.
    """
    if predictions.split == "test":
        raise EvaluationError(
            "a temperature fitted on test would flatter the test figures: fit it on validation"
        )
    if len(predictions) == 0:
        raise EvaluationError(f"no examples in {predictions.split!r} to fit a temperature on")

    def mean_nll(temperature: float) -> float:
        return float(predictions.negative_log_likelihood(temperature).mean())

    def objective(temperature: float) -> float:
        return _cautious_nll(predictions, temperature)

    candidates = (1.0, LOWEST, HIGHEST, _interior_minimum(objective))
    value = min(candidates, key=objective)
    return Temperature(
        value=value,
        fitted_on=predictions.split,
        n=len(predictions),
        nll_before=mean_nll(1.0),
        nll_after=mean_nll(value),
        at_bound=value in (LOWEST, HIGHEST),
    )


def _cautious_nll(predictions: Predictions, temperature: float) -> float:
    """Mean NLL under targets of which a share of 1 / (n + 2) lies with the other classes."""
    plain = predictions.negative_log_likelihood(temperature)
    k = len(predictions.classes)
    if predictions.kind == "soft" or (predictions.kind == "class" and k == 1):
        return float(plain.mean())
    doubt = 1 / (len(predictions) + 2)
    log_p = predictions.log_probabilities(temperature)
    if predictions.kind == "multilabel":
        # log(1 - p) = log p - z: the loss of the opposite labels is -Σ log p - log(1-p) - plain.
        both = -(2 * log_p - predictions.logits.astype(np.float64) / temperature).mean(axis=1)
        others = both - plain
    else:
        others = -(log_p.sum(axis=1) + plain) / (k - 1)
    return float(((1 - doubt) * plain + doubt * others).mean())


def _interior_minimum(function: Callable[[float], float]) -> float:
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(
        lambda log_t: function(math.exp(log_t)),
        bounds=(math.log(LOWEST), math.log(HIGHEST)),
        method="bounded",
        options={"xatol": 1e-7},
    )
    return math.exp(found.x)
