"""A linear classifier fitted to convergence: the full batch, L2 and L-BFGS."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cnn_jax.errors import DataError


@dataclass(frozen=True, eq=False)
class LinearFit:
    """A linear classifier and how it was found.

    Attributes:
      weight: float32 `[D, K]`.
      bias: float32 `[K]`.
      penalty: weight of the L2 penalty.
      excess: how far above its minimum, at most, the objective ended; see `fit_linear`.
      iterations: L-BFGS steps taken.
    """

    weight: np.ndarray
    bias: np.ndarray
    penalty: float
    excess: float
    iterations: int

    def logits(self, inputs: np.ndarray) -> np.ndarray:
        """float32 `[N, K]` for float32 inputs `[N, D]`."""
        return inputs @ self.weight + self.bias


def fit_linear(
    inputs: np.ndarray,
    targets: np.ndarray,
    penalty: float,
    sigmoid: bool = False,
    tolerance: float = 1e-4,
    max_iterations: int = 1000,
    start: LinearFit | None = None,
) -> LinearFit:
    """Minimise mean loss + penalty / 2 · ||weight||² by L-BFGS on the full batch.

    The loss of an example is the softmax cross-entropy, or with `sigmoid` the binary
    cross-entropy summed over labels. The bias is not penalised. It is scikit-learn's
    `LogisticRegression` with C = 1 / (penalty · N).

    The objective is strongly convex in the weight, so that it is at most
    ||gradient||² / (2 · penalty) above its minimum (the small share of the bias, which is not
    penalised, is neglected). The fit ends when that is below the tolerance.

    Args:
      inputs: float32 `[N, D]`.
      targets: float32 `[N, K]`, a distribution over classes, or 0 or 1 per label.
      penalty: weight of the L2 penalty, positive.
      sigmoid: whether the labels are independent.
      tolerance: in nats; see above.
      max_iterations: ends after so many steps in any case.
      start: where to begin, such as the fit with a larger penalty; zeros otherwise.

    Raises:
      DataError: the penalty is not positive.
    """
    if not penalty > 0:
        raise DataError(f"the L2 penalty must be positive, not {penalty}")
    if start is None:
        begin = np.zeros((inputs.shape[1] + 1, targets.shape[1]), np.float32)
    else:
        begin = np.concatenate([start.weight, start.bias[np.newaxis]])
    parameters, excess, iterations = _minimise(
        inputs, targets, penalty, tolerance, max_iterations, sigmoid, begin
    )
    return LinearFit(parameters[:-1], parameters[-1], penalty, excess, iterations)


def _minimise(
    inputs: np.ndarray,
    targets: np.ndarray,
    penalty: float,
    tolerance: float,
    max_iterations: int,
    sigmoid: bool,
    start: np.ndarray,
) -> tuple[np.ndarray, float, int]:
    """The parameters `[D + 1, K]` (the last row is the bias), the excess, the steps."""
    from scipy.optimize import minimize

    # In float64: the line search compares values that differ in the eighth digit.
    x, t = inputs.astype(np.float64), targets.astype(np.float64)
    excess = np.inf

    def value_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal excess
        parameters = flat.reshape(start.shape)
        weight = parameters[:-1]
        loss, error = (_binary if sigmoid else _softmax)(x @ weight + parameters[-1], t)
        error /= len(x)
        gradient = np.concatenate([x.T @ error + penalty * weight, error.sum(axis=0)[np.newaxis]])
        excess = float((gradient**2).sum()) / (2 * penalty)
        return loss + penalty / 2 * float((weight**2).sum()), gradient.ravel()

    def stop_when_close(_: np.ndarray) -> None:
        # The point just accepted is the one evaluated last.
        if excess <= tolerance:
            raise StopIteration

    found = minimize(
        value_and_gradient,
        start.astype(np.float64).ravel(),
        jac=True,
        method="L-BFGS-B",
        callback=stop_when_close,
        options={"maxiter": max_iterations, "maxfun": 10 * max_iterations, "ftol": 0, "gtol": 0},
    )
    return found.x.reshape(start.shape).astype(np.float32), excess, int(found.nit)


def _softmax(logits: np.ndarray, targets: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean cross-entropy, and its derivative by the logits times the number of examples."""
    logits -= logits.max(axis=1, keepdims=True)
    e = np.exp(logits)
    total = e.sum(axis=1, keepdims=True)
    loss = float((targets * (np.log(total) - logits)).sum(axis=1).mean())
    return loss, e / total - targets


def _binary(logits: np.ndarray, targets: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean binary cross-entropy, summed over labels, and its derivative likewise."""
    loss = float((np.logaddexp(0, logits) - targets * logits).sum(axis=1).mean())
    return loss, np.exp(-np.logaddexp(0, -logits)) - targets
