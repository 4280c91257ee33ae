"""Muon: momentum, orthogonalised, for the kernels of convolutions.

Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks", and its form
for convolutions in airbench94 (Jordan 2024). A kernel `[..., I, O]` is one matrix, rows of
taps and input channels, columns of output channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

# Of the quintic whose fifth iterate takes all of (0, 1] to about 1; from the first source.
_A, _B, _C = 3.4445, -4.7750, 2.0315


def orthogonalize(matrix: jax.Array, steps: int) -> jax.Array:
    """`U V^T` of `matrix = U S V^T`, roughly: float32 `[M, N]` of the same shape.

    X <- a X + b (X X^T) X + c (X X^T)^2 X from X = matrix / |matrix|_F, `steps` times
    (Newton-Schulz). After five steps the singular values lie in about 0.7 to 1.2, those
    that were below a thousandth of the norm excepted; zero stays zero.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (jnp.linalg.norm(x) + 1e-7)
    for _ in range(steps):
        a = x @ x.T
        x = _A * x + (_B * a + _C * a @ a) @ x
    return x.T if tall else x


def muon(
    learning_rate: Any,
    *,
    momentum: Any,
    nesterov: bool,
    steps: int,
    project: bool,
    weight_decay: Any,
    decayed: Callable[[Any], Any],
) -> optax.GradientTransformation:
    """Updates for kernels of two axes or more, by

      b <- momentum b + g;  d = orthogonalize(g + momentum b, or b without Nesterov)
      w <- project(w) - learning_rate d         with project(w) = w sqrt(O) / |w|_F
      w <- w - learning_rate (d + weight_decay w)      without projection

    Before batch norm only a kernel's direction counts: the projection keeps its norm, and
    with that the angle of a step, where weight decay would only tend towards it.

    Args:
      learning_rate, momentum, weight_decay: numbers, or traced scalars.
      nesterov, steps, project: see above, and `orthogonalize`.
      decayed: of the parameters, the tree of whether weight decay applies.
    """

    def init(params: Any) -> Any:
        return jax.tree.map(jnp.zeros_like, params)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        buffers = jax.tree.map(lambda g, b: g + momentum * b, updates, state)
        ahead = buffers
        if nesterov:
            ahead = jax.tree.map(lambda g, b: g + momentum * b, updates, buffers)

        def change(d: jax.Array, w: jax.Array, decays: bool) -> jax.Array:
            matrix = d.reshape(-1, d.shape[-1])
            step = orthogonalize(matrix, steps).reshape(d.shape)
            if not project:
                return -learning_rate * ((step + weight_decay * w) if decays else step)
            scale = math.sqrt(w.shape[-1]) / (jnp.linalg.norm(w.ravel()) + 1e-7)
            return (scale - 1) * w - learning_rate * step

        return jax.tree.map(change, ahead, params, decayed(params)), buffers

    return optax.GradientTransformation(init, update)
