"""A linear classifier fitted to convergence: the full batch, L2 and L-BFGS."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cnn_jax.errors import DataError

Parameters = tuple[jax.Array, jax.Array]
Carry = tuple[Parameters, optax.OptState, jax.Array]


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

    Raises:
      DataError: the penalty is not positive.
    """
    if not penalty > 0:
        raise DataError(f"the L2 penalty must be positive, not {penalty}")
    weight, bias, excess, iterations = _minimise(
        inputs, targets, jnp.float32(penalty), jnp.float32(tolerance), max_iterations, sigmoid
    )
    return LinearFit(np.asarray(weight), np.asarray(bias), penalty, float(excess), int(iterations))


@partial(jax.jit, static_argnames=("sigmoid",))
def _minimise(
    inputs: jax.Array,
    targets: jax.Array,
    penalty: jax.Array,
    tolerance: jax.Array,
    max_iterations: int,
    sigmoid: bool,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """The weight, the bias, the excess and the number of steps."""

    def objective(parameters: Parameters) -> jax.Array:
        weight, bias = parameters
        logits = jnp.matmul(inputs, weight, precision="highest") + bias[jnp.newaxis]
        if sigmoid:
            losses = optax.sigmoid_binary_cross_entropy(logits, targets).sum(axis=1)
        else:
            losses = optax.softmax_cross_entropy(logits, targets)
        return losses.mean() + penalty / 2 * jnp.sum(weight**2)

    optimizer = optax.lbfgs()
    value_and_gradient = optax.value_and_grad_from_state(objective)

    def excess(state: optax.OptState) -> jax.Array:
        return optax.tree.norm(optax.tree.get(state, "grad"), squared=True) / (2 * penalty)

    def unfinished(carry: Carry) -> jax.Array:
        _, state, step = carry
        return (step == 0) | ((step < max_iterations) & (excess(state) > tolerance))

    def advance(carry: Carry) -> Carry:
        parameters, state, step = carry
        value, gradient = value_and_gradient(parameters, state=state)
        updates, state = optimizer.update(
            gradient, state, parameters, value=value, grad=gradient, value_fn=objective
        )
        return jax.tree.map(jnp.add, parameters, updates), state, step + 1

    shape = inputs.shape[1], targets.shape[1]
    start = jnp.zeros(shape, jnp.float32), jnp.zeros(shape[1], jnp.float32)
    carry = start, optimizer.init(start), jnp.int32(0)
    (weight, bias), state, step = jax.lax.while_loop(unfinished, advance, carry)
    return weight, bias, excess(state), step
