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
        """What `model.apply` takes."""
        return {"params": self.params, **self.model_state}


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
      hyper: scalars of the recipe.
      key: root key of the run.
    """
    return State(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        model_state={name: value for name, value in variables.items() if name != "params"},
        opt_state=opt_state,
        ema=None,
        hyper={name: jnp.asarray(value, jnp.float32) for name, value in hyper.items()},
        key=key,
    )
