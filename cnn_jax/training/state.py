"""`State`: everything that training changes, as one pytree of arrays."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

PyTree = Any
Batch = dict[str, jax.Array]


class State(flax.struct.PyTreeNode):
    """The state of training; donated to every step.

    Attributes:
      step: int32 scalar, number of steps taken.
      params: float32 parameters.
      model_state: every other collection of the model, such as `batch_stats`.
      opt_state: state of the optimizer.
      ema: moving average of params and model_state, or None.
      hyper: float32 scalars that the step reads instead of Python numbers, so that the
        members of a population can differ in them.
      key: typed PRNG key, the root of all randomness of the run; never changes.
    """

    step: jax.Array
    params: PyTree
    model_state: PyTree
    opt_state: PyTree
    ema: PyTree
    hyper: dict[str, jax.Array]
    key: jax.Array

    @property
    def variables(self) -> dict[str, PyTree]:
        """What `model.apply` takes while training."""
        return {"params": self.params, **self.model_state}

    @property
    def evaluated(self) -> dict[str, PyTree]:
        """What is validated, evaluated and exported: the moving average, if there is one."""
        return self.variables if self.ema is None else dict(self.ema)


def purpose_key(root: jax.Array, purpose: str, step: jax.Array | int | None = None) -> jax.Array:
    """The key for a named purpose, and for one step of it.

    Keys of different purposes and steps are independent, and adding a purpose changes no
    other: nothing is ever split in sequence.
    """
    key = jax.random.fold_in(root, zlib.crc32(purpose.encode()))
    return key if step is None else jax.random.fold_in(key, step)


def create_state(
    variables: Mapping[str, PyTree], opt_state: PyTree, hyper: Mapping[str, float], key: jax.Array
) -> State:
    """The state before the first step.

    Args:
      variables: what `model.init` gave.
      opt_state: what the optimizer's `init` gave for `variables["params"]`.
      hyper: scalars of the recipe; with `ema` among them a moving average is kept.
      key: root key of the run.
    """
    averaged = "ema" in hyper
    return State(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        model_state={name: value for name, value in variables.items() if name != "params"},
        opt_state=opt_state,
        # Copies: a donated state must not hold an array twice.
        ema=jax.tree.map(jnp.copy, dict(variables)) if averaged else None,
        hyper={name: jnp.asarray(value, jnp.float32) for name, value in hyper.items()},
        key=key,
    )


def update_average(state: State) -> State:
    """The state after a step, its moving average moved on; as it is without one.

    a <- d a + (1 - d) x for every parameter and statistic x, with d = min(`hyper["ema"]`,
    (1 + t) / (10 + t)) after step t, so that the first values are soon forgotten. What is
    no floating number is copied.
    """
    if state.ema is None:
        return state
    t = state.step.astype(jnp.float32)
    decay = jnp.minimum(state.hyper["ema"], (1 + t) / (10 + t))

    def move(average: jax.Array, value: jax.Array) -> jax.Array:
        if not jnp.issubdtype(value.dtype, jnp.floating):
            return value
        return value + (decay * (average - value)).astype(value.dtype)

    return state.replace(ema=jax.tree.map(move, state.ema, state.variables))
