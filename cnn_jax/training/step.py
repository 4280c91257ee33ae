"""The training step and the evaluation step: pure functions, compiled once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax
from jax import lax

from cnn_jax import nn
from cnn_jax.augment import Augment
from cnn_jax.errors import RecipeError
from cnn_jax.recipe import ScheduleRecipe
from cnn_jax.training.optimizers import Optimizer
from cnn_jax.training.preprocess import Preprocess
from cnn_jax.training.schedules import learning_rate
from cnn_jax.training.selfsupervised import Preparing
from cnn_jax.training.sizes import resize
from cnn_jax.training.state import Batch, PyTree, State, purpose_key, update_average
from cnn_jax.training.task import Task
from cnn_jax.training.views import Views, views_of

# (variables, image, train, rngs) -> (outputs, new model_state). The step knows nothing
# else of the module system.
ApplyFn = Callable[
    [Mapping[str, PyTree], jax.Array, bool, dict[str, jax.Array]], tuple[Any, PyTree]
]

# name -> (sum, weight); a mean is the ratio of their sums over steps.
Metrics = dict[str, tuple[jax.Array, jax.Array]]

# Beside a gradient: the new model state, and the sums of loss and accuracy.
_Rest = tuple[PyTree, Metrics]
# What goes from one part of a batch to the next: gradient, model state, sums.
_Carry = tuple[PyTree, PyTree, Metrics]


@dataclass(frozen=True)
class LinenApply:
    """The apply function of a Flax Linen module.

    Attributes:
      model: the module.
      remat: in training the insides of submodules whose paths match are computed again in the
        backward pass; see `nn.recompute`.
    """

    model: nn.Module
    remat: tuple[str, ...] = ()

    def __call__(
        self,
        variables: Mapping[str, PyTree],
        image: jax.Array,
        train: bool,
        rngs: dict[str, jax.Array],
    ) -> tuple[Any, PyTree]:
        """The model's outputs, and its new state; see `ApplyFn`."""
        collections = [name for name in variables if name != "params"]
        if not train:
            return self.model.apply(variables, image, train=False), {
                name: variables[name] for name in collections
            }
        with nn.recompute(self.remat) if self.remat else contextlib.nullcontext():
            outputs, updated = self.model.apply(
                variables, image, train=True, rngs=rngs, mutable=collections
            )
        return outputs, {name: updated[name] for name in collections}


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
      accumulate: parts that a batch is worked through in; divides its rows.
      sharpness: whether the gradient is taken after a step of `hyper["sam"]` uphill
        (sharpness-aware minimisation, Foret et al. 2021).

    Raises:
      RecipeError: a batch is worked through in parts, but the task compares all its examples.
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
    accumulate: int = 1
    sharpness: bool = False

    def __post_init__(self) -> None:
        if self.accumulate > 1 and isinstance(self.task, Preparing) and self.task.whole_batch:
            raise RecipeError(
                f"train.accumulate is {self.accumulate}, but {type(self.task).__name__} compares "
                "all examples of a batch with each other: set it to 1"
            )

    def __call__(
        self, state: State, batch: Batch, side: int | None = None
    ) -> tuple[State, Metrics]:
        """Forward, loss, gradients, update.

        Args:
          state: before the step.
          batch: `image` uint8 or float32 `[B, H, W, C]`, `label`, `valid` bool `[B]`.
          side: pixels that the shorter side of the augmented images is reduced to; None for none.

        Returns:
          The state after the step, and (sum, weight) of loss, accuracy, gradient_norm (of
          the gradient that moves the parameters, before clipping) and learning_rate.
        """
        batch = {**batch, "image": self.preprocess.to_unit(batch["image"])}
        batch = self.augment(
            purpose_key(state.key, "augment", state.step),
            batch,
            root=purpose_key(state.key, "flip"),
            epoch=state.step // self.steps_per_epoch,
        )
        if isinstance(self.task, Preparing):
            batch = self.task.prepare(batch, key=purpose_key(state.key, "task", state.step))
        image = batch["image"] if side is None else resize(batch["image"], side)
        batch = {**batch, "image": self.preprocess.normalise(image)}
        grads, (model_state, sums) = self._gradients(state.params, state, batch)
        norm = optax.tree.norm(grads)
        if self.sharpness:
            # Loss, accuracy and statistics are those of the first pass; the norm is that of
            # the second, so that the loop sees whatever is not finite.
            climb = state.hyper["sam"] / jnp.maximum(norm, 1e-12)
            highest = jax.tree.map(lambda w, g: w + climb * g, state.params, grads)
            grads, _ = self._gradients(highest, state, batch)
            norm = optax.tree.norm(grads)
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
        metrics = {**sums, "gradient_norm": (norm, one), "learning_rate": (rate, one)}
        state = state.replace(
            step=state.step + 1, params=params, model_state=model_state, opt_state=opt_state
        )
        return update_average(state), metrics

    def _gradients(self, params: PyTree, state: State, batch: Batch) -> tuple[PyTree, _Rest]:
        """Gradient of the mean loss of the whole batch, worked through in parts."""
        if self.accumulate == 1:
            return self._part_gradients(params, state.model_state, state, batch, 0)

        def add(carry: _Carry, number: Any) -> _Carry:
            total, model_state, sums = carry
            # Every n-th row, not n-th slice: each device keeps to the rows it holds.
            part = jax.tree.map(
                lambda x: jnp.take(x.reshape(-1, self.accumulate, *x.shape[1:]), number, axis=1),
                batch,
            )
            # Nothing is added, but no part can begin before the one before has ended: else
            # the CPU backend, which drops barriers, would hold the memory of all at once.
            ends = jax.tree.leaves(jax.tree.map(lambda t: t.ravel()[-1], total))
            part["image"] = part["image"] + 0 * sum(ends[1:], ends[0])
            grads, (model_state, new) = self._part_gradients(
                params, model_state, state, part, number
            )
            # A part counts by its weight, so that padding and class weights do not tip it.
            total = jax.tree.map(lambda t, g: t + new["loss"][1] * g, total, grads)
            return total, model_state, jax.tree.map(jnp.add, sums, new)

        zero = jnp.zeros((), jnp.float32)
        nothing = {"loss": (zero, zero), "accuracy": (zero, zero)}
        carry: _Carry = (jax.tree.map(jnp.zeros_like, params), state.model_state, nothing)
        if jax.default_backend() == "cpu":
            # See `chunk_of` for why this is no scan.
            for number in range(self.accumulate):
                carry = add(carry, number)
        else:
            carry, _ = lax.scan(lambda c, n: (add(c, n), None), carry, jnp.arange(self.accumulate))
        total, model_state, sums = carry
        count = jnp.maximum(sums["loss"][1], 1e-9)
        return jax.tree.map(lambda t: t / count, total), (model_state, sums)

    def _part_gradients(
        self, params: PyTree, model_state: PyTree, state: State, batch: Batch, number: Any
    ) -> tuple[PyTree, _Rest]:
        """Gradient of the mean loss of one part, its new model state and its sums."""
        loss_key = purpose_key(state.key, "loss", state.step)
        dropout_key = purpose_key(state.key, "dropout", state.step)
        if self.accumulate > 1:
            loss_key, dropout_key = (
                jax.random.fold_in(key, number) for key in (loss_key, dropout_key)
            )
        valid = batch["valid"].astype(jnp.float32)

        def objective(params: PyTree) -> tuple[jax.Array, _Rest]:
            variables = {"params": params, **model_state}
            with self._padding(batch["valid"]):
                outputs, updated = self.apply(
                    variables, batch["image"], True, {"dropout": dropout_key}
                )
            loss, weight = self.task.loss(outputs, batch, state.hyper, key=loss_key)
            weight = weight * valid
            total, count = (weight * loss).sum(), weight.sum()
            sums = {
                "loss": (total, count),
                "accuracy": ((self.task.correct(outputs, batch) * valid).sum(), valid.sum()),
            }
            return total / jnp.maximum(count, 1e-9), (updated, sums)

        return jax.grad(objective, has_aux=True)(params)

    def _padding(self, valid: jax.Array) -> contextlib.AbstractContextManager[Any]:
        return nn.mask_padding(valid) if self.padded else contextlib.nullcontext()


def gather_batch(resident: Batch, item: Batch) -> Batch:
    """A batch: rows `item["index"]` of the resident arrays, and what `item` brings itself."""
    return {**{name: rows[item["index"]] for name, rows in resident.items()}, **item}


class RunChunk(Protocol):
    """K steps: `items` have a leading axis K, metrics are summed over the steps.

    `side` is static: each size of image is a program of its own.
    """

    def __call__(
        self, state: State, resident: Batch, items: Batch, *, side: int | None = None
    ) -> tuple[State, Metrics]:
        """The state after the steps, and their metrics."""
        ...


def chunk_of(train_step: Callable[..., tuple[State, Metrics]]) -> RunChunk:
    """K steps as one pure function.

    One step is not put in a scan, not even an unrolled one: of a network with stock convolutions
    XLA's CPU backend computes the weight gradients 30 times slower there.

    Args:
      train_step: one step, of a state, a batch and, where there is one, the side of its images.
    """

    def run_chunk(
        state: State, resident: Batch, items: Batch, *, side: int | None = None
    ) -> tuple[State, Metrics]:
        sized = () if side is None else (side,)

        def body(state: State, item: Batch) -> tuple[State, Metrics]:
            return train_step(state, gather_batch(resident, item), *sized)

        if len(items["index"]) == 1:
            return body(state, jax.tree.map(lambda x: x[0], items))
        state, metrics = lax.scan(body, state, items)
        return state, jax.tree.map(lambda x: x.sum(axis=0), metrics)

    return run_chunk


def make_run_chunk(
    train_step: Callable[..., tuple[State, Metrics]],
    compiler_options: Mapping[str, Any] | Iterable[tuple[str, Any]] = (),
) -> RunChunk:
    """K steps as one compiled call; see `chunk_of`. The state is donated.

    Args:
      train_step: one step, a pure function.
      compiler_options: of XLA, for this function alone: names and values.
    """
    options = dict(compiler_options) or None
    return jax.jit(
        chunk_of(train_step), donate_argnums=0, static_argnames="side", compiler_options=options
    )


def eval_of(
    apply: ApplyFn, task: Task, preprocess: Preprocess, views: Views = "one"
) -> Callable[[Mapping[str, PyTree], Batch, Batch], dict[str, jax.Array]]:
    """`eval_step(variables, resident, item) -> predictions`, a pure function.

    Predictions (logits) are averaged over the views of each image; see `views.views_of`.
    """

    def eval_step(
        variables: Mapping[str, PyTree], resident: Batch, item: Batch
    ) -> dict[str, jax.Array]:
        image = preprocess(gather_batch(resident, item)["image"])
        seen = [
            jax.tree.map(
                lambda x, weight=weight: weight * x,
                task.predictions(apply(variables, view, False, {})[0]),
            )
            for view, weight in views_of(image, views)
        ]
        return jax.tree.map(lambda *values: sum(values[1:], values[0]), *seen)

    return eval_step


def over_batches(
    eval_step: Callable[[Mapping[str, PyTree], Batch, Batch], dict[str, jax.Array]],
) -> Callable[[Mapping[str, PyTree], Batch, Batch], dict[str, jax.Array]]:
    """Several batches as one call.

    Returns:
      `eval_chunk(variables, resident, items) -> predictions`: `items` have a leading axis S, and
      so have the predictions; only the first `items["count"]`, an int32, are computed, so that
      one program serves every part of a data set.
    """

    def eval_chunk(
        variables: Mapping[str, PyTree], resident: Batch, items: Batch
    ) -> dict[str, jax.Array]:
        batches = {name: rows for name, rows in items.items() if name != "count"}

        def one(number: Any) -> dict[str, jax.Array]:
            return eval_step(variables, resident, {k: v[number] for k, v in batches.items()})

        size = len(batches["index"])
        if size == 1:
            return jax.tree.map(lambda x: x[None], one(0))
        empty = jax.tree.map(lambda x: jnp.zeros((size, *x.shape), x.dtype), jax.eval_shape(one, 0))

        def body(number: jax.Array, found: dict[str, jax.Array]) -> dict[str, jax.Array]:
            return jax.tree.map(lambda all, x: all.at[number].set(x), found, one(number))

        filled: dict[str, jax.Array] = lax.fori_loop(0, items["count"], body, empty)
        return filled

    return eval_chunk


def make_eval_step(
    apply: ApplyFn, task: Task, preprocess: Preprocess, views: Views = "one"
) -> Callable[[Mapping[str, PyTree], Batch, Batch], dict[str, jax.Array]]:
    """`eval_of` over several batches, compiled; see `over_batches`."""
    return jax.jit(over_batches(eval_of(apply, task, preprocess, views)))
