"""The training step and the evaluation step: pure functions, compiled once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from cnn_jax import nn
from cnn_jax.augment import Augment
from cnn_jax.recipe import ScheduleRecipe
from cnn_jax.training.optimizers import Optimizer
from cnn_jax.training.preprocess import Preprocess
from cnn_jax.training.schedules import learning_rate
from cnn_jax.training.state import Batch, PyTree, State, purpose_key
from cnn_jax.training.task import Task

# (variables, image, train, rngs) -> (outputs, new model_state). The step knows nothing
# else of the module system.
ApplyFn = Callable[
    [Mapping[str, PyTree], jax.Array, bool, dict[str, jax.Array]], tuple[Any, PyTree]
]

# name -> (sum, weight); a mean is the ratio of their sums over steps.
Metrics = dict[str, tuple[jax.Array, jax.Array]]


def linen_apply(model: nn.Module) -> ApplyFn:
    """The apply function of a Flax Linen module."""

    def apply(
        variables: Mapping[str, PyTree],
        image: jax.Array,
        train: bool,
        rngs: dict[str, jax.Array],
    ) -> tuple[Any, PyTree]:
        collections = [name for name in variables if name != "params"]
        if not train:
            return model.apply(variables, image, train=False), {
                name: variables[name] for name in collections
            }
        outputs, updated = model.apply(variables, image, train=True, rngs=rngs, mutable=collections)
        return outputs, {name: updated[name] for name in collections}

    return apply


@dataclass(frozen=True)
class TrainStep:
    """One step of training as a pure function of state and batch.

    Attributes:
      apply: the model.
      task: what is minimised.
      optimizer: how parameters move.
      schedule: how the learning rate changes.
      augment: what happens to the images first.
      preprocess: pixels to network input.
      steps_per_epoch, epochs: length of training, for the schedule.
      padded: whether a batch may have padded rows, which batch statistics must not count.
    """

    apply: ApplyFn
    task: Task
    optimizer: Optimizer
    schedule: ScheduleRecipe
    augment: Augment
    preprocess: Preprocess
    steps_per_epoch: int
    epochs: int
    padded: bool

    def __call__(self, state: State, batch: Batch) -> tuple[State, Metrics]:
        """Forward, loss, gradients, update.

        Args:
          state: before the step.
          batch: `image` uint8 or float32 `[B, H, W, C]`, `label`, `valid` bool `[B]`.

        Returns:
          The state after the step, and (sum, weight) of loss, accuracy, gradient_norm and
          learning_rate.
        """
        batch = {**batch, "image": self.preprocess.to_unit(batch["image"])}
        batch = self.augment(purpose_key(state.key, "augment", state.step), batch)
        image = self.preprocess.normalise(batch["image"])
        valid = batch["valid"].astype(jnp.float32)
        loss_key = purpose_key(state.key, "loss", state.step)
        rngs = {"dropout": purpose_key(state.key, "dropout", state.step)}

        def objective(params: PyTree) -> tuple[jax.Array, tuple[Any, PyTree, jax.Array, jax.Array]]:
            variables = {"params": params, **state.model_state}
            with self._padding(batch["valid"]):
                outputs, model_state = self.apply(variables, image, True, rngs)
            loss, weight = self.task.loss(outputs, batch, state.hyper, key=loss_key)
            weight = weight * valid
            total, count = (weight * loss).sum(), weight.sum()
            return total / jnp.maximum(count, 1e-9), (outputs, model_state, total, count)

        gradient = jax.value_and_grad(objective, has_aux=True)
        (_, (outputs, model_state, total, count)), grads = gradient(state.params)
        rate = learning_rate(
            self.schedule,
            state.hyper,
            state.step,
            steps_per_epoch=self.steps_per_epoch,
            epochs=self.epochs,
        )
        params, opt_state = self.optimizer.update(
            grads, state.opt_state, state.params, state.hyper, rate
        )
        one = jnp.ones((), jnp.float32)
        metrics = {
            "loss": (total, count),
            "accuracy": ((self.task.correct(outputs, batch) * valid).sum(), valid.sum()),
            "gradient_norm": (optax.tree.norm(grads), one),
            "learning_rate": (rate, one),
        }
        state = state.replace(
            step=state.step + 1, params=params, model_state=model_state, opt_state=opt_state
        )
        return state, metrics

    def _padding(self, valid: jax.Array) -> contextlib.AbstractContextManager[Any]:
        return nn.mask_padding(valid) if self.padded else contextlib.nullcontext()


def gather_batch(resident: Batch, item: Batch) -> Batch:
    """A batch: rows `item["index"]` of the resident arrays, and what `item` brings itself."""
    return {**{name: rows[item["index"]] for name, rows in resident.items()}, **item}


def make_run_chunk(
    train_step: Callable[[State, Batch], tuple[State, Metrics]],
    compiler_options: Mapping[str, Any] | None = None,
) -> Callable[[State, Batch, Batch], tuple[State, Metrics]]:
    """K steps as one compiled call.

    Args:
      train_step: one step, a pure function.
      compiler_options: of XLA, for this function alone.

    Returns:
      `run_chunk(state, resident, items) -> (state, metrics)`: `items` have a leading axis
      K; metrics are summed over the K steps. The state is donated. One step is not put
      in a scan, not even an unrolled one: XLA's CPU backend computes a convolution's
      weight gradient 30 times slower there.
    """

    def run_chunk(state: State, resident: Batch, items: Batch) -> tuple[State, Metrics]:
        def body(state: State, item: Batch) -> tuple[State, Metrics]:
            return train_step(state, gather_batch(resident, item))

        if len(items["index"]) == 1:
            return body(state, jax.tree.map(lambda x: x[0], items))
        state, metrics = lax.scan(body, state, items)
        return state, jax.tree.map(lambda x: x.sum(axis=0), metrics)

    options = dict(compiler_options) if compiler_options else None
    return jax.jit(run_chunk, donate_argnums=0, compiler_options=options)


def make_eval_step(
    apply: ApplyFn, task: Task, preprocess: Preprocess
) -> Callable[[Mapping[str, PyTree], Batch, Batch], dict[str, jax.Array]]:
    """`eval_step(variables, resident, item) -> predictions`, compiled."""

    def eval_step(
        variables: Mapping[str, PyTree], resident: Batch, item: Batch
    ) -> dict[str, jax.Array]:
        image = preprocess(gather_batch(resident, item)["image"])
        outputs, _ = apply(variables, image, False, {})
        return task.predictions(outputs)

    return jax.jit(eval_step)
