"""Vector scaling: a factor and an offset for each class."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation.predictions import (
    CalibrationPredictions,
    P,
    check_calibration,
    log_probabilities,
)

# Deviations of factors around 1 and offsets around 0, before any example is seen.
_DEVIATION = {"factors": 0.5, "offsets": 1.0}


@dataclass(frozen=True)
class VectorScaling:
    """z'_k = w_k z_k + b_k (Guo et al. 2017); for several labels each is Platt's (1999).

    Attributes:
      factors, offsets: w and b, one for each class.
      fitted_on: name of the split it was fitted on.
      n: number of examples of that split.
      nll_before, nll_after: mean negative log-likelihood there, in nats.
    """

    factors: tuple[float, ...]
    offsets: tuple[float, ...]
    fitted_on: str
    n: int
    nll_before: float
    nll_after: float

    def apply(self, predictions: P) -> P:
        """The predictions with scaled logits; unlike a temperature this may change classes.

        Raises:
          EvaluationError: another number of classes.
        """
        if len(self.factors) != len(predictions.classes):
            raise EvaluationError(
                f"vector scaling of {len(self.factors)} classes does not fit predictions of "
                f"{len(predictions.classes)}"
            )
        logits = predictions.logits * np.asarray(self.factors) + np.asarray(self.offsets)
        return replace(predictions, logits=logits.astype(np.float32))


def fit_vector_scaling(predictions: CalibrationPredictions) -> VectorScaling:
    """The most probable factors and offsets, given the NLL and a prior.

    Minimised is the NLL summed over examples (and over labels, of several) +
    Σ (w_k - 1)^2 / (2 0.5^2) + Σ b_k^2 / 2, which is convex, by L-BFGS with its gradient. The
    prior, as that of `fit_temperature`, counts as much as a few examples: without it classes that
    few examples have would get any factor.

    Raises:
      EvaluationError: the predictions are not of the type that is fitted on, or there are none.
    """
    from scipy.optimize import minimize

    check_calibration(predictions, "vector scaling")
    z, k, n = predictions.logits.astype(np.float64), len(predictions.classes), len(predictions)
    several = predictions.kind == "multilabel"
    hard = predictions.kind == "class"
    target = np.eye(k)[predictions.labels()] if hard else predictions.targets.astype(np.float64)
    spread = np.repeat([_DEVIATION["factors"], _DEVIATION["offsets"]], k)
    usual = np.repeat([1.0, 0.0], k)

    def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
        scaled = z * x[:k] + x[k:]
        log_p = log_probabilities(scaled, predictions.kind)
        p = np.exp(log_p)
        if several:
            nll = np.where(target > 0.5, -log_p, -log_probabilities(-scaled, "multilabel")).sum()
        else:
            nll = -(target * log_p).sum()
        slope = p - target
        gradient = np.concatenate([(slope * z).sum(axis=0), slope.sum(axis=0)])
        away = (x - usual) / spread
        return nll + (away**2).sum() / 2, gradient + away / spread

    found = minimize(objective, usual, jac=True, method="L-BFGS-B", options={"maxiter": 1000})
    fitted = VectorScaling(
        factors=tuple(found.x[:k].tolist()),
        offsets=tuple(found.x[k:].tolist()),
        fitted_on=predictions.split,
        n=n,
        nll_before=float(predictions.negative_log_likelihood().mean()),
        nll_after=0.0,
    )
    after = float(fitted.apply(predictions).negative_log_likelihood().mean())
    return replace(fitted, nll_after=after)
