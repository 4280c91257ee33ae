"""A whole run of a record as a few compiled programs."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import flax.struct
import flax.traverse_util
import jax
import jax.numpy as jnp
import optax
from jax import lax

from cnn_jax.augment.batch import Purpose, keys_for
from cnn_jax.augment.covering import box
from cnn_jax.augment.moving import alternating_flip, translate
from cnn_jax.training.muon import muon
from cnn_jax.training.preprocess import Preprocess
from cnn_jax.training.state import purpose_key
from cnn_jax.training.task import Classification
from cnn_jax.training.views import views_of
from experiments.speedrun.network import whitening_kernel
from experiments.speedrun.records import Muon, Nesterov, Record

# Mean and deviation of CIFAR-10's pixels, as the records have them.
PREPROCESS = Preprocess((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
WHITENING_IMAGES = 5000
LOOKAHEAD = 5  # steps between two averages
EVALUATED = 2000  # images at a time


class State(flax.struct.PyTreeNode):
    """What a run changes; donated to `Program.advance`.

    Attributes:
      step: int32, steps taken.
      params: float32 parameters.
      statistics: `batch_stats`, and `whitening`, which stays.
      opt_state: of optax.
      average: what the weights are drawn to, parameters and `batch_stats`; None for Muon.
      key: the root of all randomness of the run; never changes.
    """

    step: jax.Array
    params: Any
    statistics: Any
    opt_state: Any
    average: Any
    key: jax.Array


# Sums over examples: of the loss, with its smoothing, and of how many were right.
Sums = tuple[jax.Array, jax.Array]


@dataclass(frozen=True)
class Program:
    """The functions of a record, each compiled once.

    Attributes:
      record: what is trained.
      examples: size of the train part.
      dtype: of convolutions and activations: float32, or a half precision.
    """

    record: Record
    examples: int
    dtype: Any = jnp.float32

    @cached_property
    def steps(self) -> int:
        """Steps of a run."""
        return self.record.steps(self.examples)

    @cached_property
    def steps_per_epoch(self) -> int:
        """Steps of a whole epoch."""
        return self.record.steps_per_epoch(self.examples)

    @cached_property
    def begin(self) -> Any:
        """`begin(key, images) -> State`: first weights, the whitening of `images` among them."""
        return jax.jit(self._begin)

    @cached_property
    def advance(self) -> Any:
        """`advance(state, images, labels, until) -> (State, Sums)`: train up to a step.

        `images` uint8 `[N, 32, 32, 3]`, `labels` int32 `[N]`; `until`, int32, lies in the
        epoch of the state's step or at its end.
        """
        return jax.jit(self._advance, donate_argnums=0)

    @cached_property
    def evaluate(self) -> Any:
        """`evaluate(state, images) -> (logits, logits)` float32 `[N, 10]`: the mean of six
        views of each image, and of the image alone."""
        return jax.jit(self._evaluate)

    def _begin(self, key: jax.Array, images: jax.Array) -> State:
        network = self.record.network(self.dtype)
        variables = network.init(purpose_key(key, "init"), PREPROCESS(images[:1]))
        whitening = whitening_kernel(PREPROCESS(images[:WHITENING_IMAGES]))
        params = variables["params"]
        statistics = {
            "batch_stats": variables["batch_stats"],
            "whitening": {"whiten": {"kernel": whitening}},
        }
        averaged = {"params": params, "batch_stats": statistics["batch_stats"]}
        return State(
            step=jnp.zeros((), jnp.int32),
            params=params,
            statistics=statistics,
            opt_state=self._optimizer(jnp.zeros((), jnp.int32)).init(params),
            average=jax.tree.map(jnp.copy, averaged) if self._looks_ahead else None,
            key=key,
        )

    def _advance(
        self, state: State, images: jax.Array, labels: jax.Array, until: jax.Array
    ) -> tuple[State, Sums]:
        # One order for the epoch, the same wherever in it a call begins.
        epoch = state.step // self.steps_per_epoch
        order = jax.random.permutation(purpose_key(state.key, "order", epoch), self.examples)

        def body(step: jax.Array, carry: tuple[State, Sums]) -> tuple[State, Sums]:
            state, sums = carry
            size = self.record.batch_size
            first = step % self.steps_per_epoch * size
            index = lax.dynamic_slice(order, (first,), (size,))
            batch = self.augmented(
                state.key, step, {"image": images[index], "index": index.astype(jnp.int32)}
            )
            state, new = self.step(state, batch, labels[index])
            return state, jax.tree.map(jnp.add, sums, new)

        # No scan: one program serves a whole epoch, a part of one and a single step.
        zero = jnp.zeros((), jnp.float32)
        return lax.fori_loop(state.step, until, body, (state, (zero, zero)))

    def augmented(self, key: jax.Array, step: jax.Array, batch: Mapping[str, Any]) -> jax.Array:
        """Normalised images, mirrored every other epoch, shifted, and covered in part."""
        size = self.record.batch_size
        drawn = purpose_key(key, "augment", step)
        batch = alternating_flip(
            purpose_key(key, "flip"), step // self.steps_per_epoch, dict(batch)
        )
        keys = keys_for(drawn, size, Purpose.TRANSLATE)
        batch = translate(keys, batch, self.record.translate, "reflect")
        image = PREPROCESS(batch["image"])
        if self.record.cutout:
            keys = keys_for(drawn, size, Purpose.CUTOUT)
            image = cover(keys, image, self.record.cutout)
        return image

    def step(self, state: State, image: jax.Array, label: jax.Array) -> tuple[State, Sums]:
        """Forward, the sum of the losses, gradients, update.

        Args:
          state: before the step.
          image: float32 `[B, 32, 32, 3]`, augmented and normalised.
          label: int32 `[B]`.
        """
        network, task = self.record.network(self.dtype), Classification(10)

        def objective(params: Any) -> tuple[jax.Array, tuple[Any, jax.Array]]:
            logits, updated = network.apply(
                {"params": params, **state.statistics}, image, train=True, mutable=["batch_stats"]
            )
            hyper = {"label_smoothing": jnp.float32(self.record.label_smoothing)}
            losses, _ = task.loss(logits, {"label": label}, hyper, key=state.key)
            return losses.sum(), (updated["batch_stats"], (logits.argmax(axis=1) == label).sum())

        gradient = jax.value_and_grad(objective, has_aux=True)
        (loss, (stats, correct)), grads = gradient(state.params)
        # optax takes its scalars for Python numbers.
        with jax.numpy_dtype_promotion("standard"):
            updates, opt_state = self._optimizer(state.step).update(
                grads, state.opt_state, state.params
            )
        state = state.replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            statistics={**state.statistics, "batch_stats": stats},
            opt_state=opt_state,
        )
        state = self._looked_ahead(state) if self._looks_ahead else state
        return state, (loss, correct.astype(jnp.float32))

    @property
    def _looks_ahead(self) -> bool:
        return isinstance(self.record.optimizer, Nesterov)

    def _looked_ahead(self, state: State) -> State:
        """Every fifth step the average moves towards the network and the network onto it.

        a <- d a + (1 - d) x; x <- a with d = 0.95^5 (t / T)^3, for parameters and running
        statistics; after the last step, if it is no fifth one, x <- a alone.
        """
        fifth = state.step % LOOKAHEAD == 0
        decay = 0.95**LOOKAHEAD * (state.step.astype(jnp.float32) / self.steps) ** 3
        decay = jnp.where(fifth, decay, 1.0)
        due = fifth | (state.step == self.steps)
        now = {"params": state.params, "batch_stats": state.statistics["batch_stats"]}
        moved = jax.tree.map(lambda a, x: decay * a + (1 - decay) * x, state.average, now)

        def where_due(new: Any, old: Any) -> Any:
            return jax.tree.map(lambda a, b: jnp.where(due, a, b), new, old)

        now = where_due(moved, now)
        return state.replace(
            params=now["params"],
            statistics={**state.statistics, "batch_stats": now["batch_stats"]},
            average=where_due(moved, state.average),
        )

    def _optimizer(self, step: jax.Array) -> optax.GradientTransformation:
        """The update of a step, its rates those of that step."""
        recipe = self.record.optimizer
        frozen_after = self.record.whitening_epochs * self.steps_per_epoch
        now = step.astype(jnp.float32)
        if isinstance(recipe, Muon):
            falling = 1 - now / self.steps
            decay = recipe.decay * self.record.batch_size
            rules: dict[Hashable, optax.GradientTransformation] = {
                "kernel": muon(
                    recipe.learning_rate * falling,
                    momentum=recipe.momentum,
                    nesterov=True,
                    steps=3,
                    project=True,
                    weight_decay=0.0,
                    decayed=lambda params: jax.tree.map(lambda _: False, params),
                ),
                # Once frozen, its rate stays 0: without the bound it would turn negative.
                "whitening": _sgd(
                    recipe.bias_rate,
                    jnp.maximum(0.0, 1 - now / frozen_after),
                    decay,
                    recipe.other_momentum,
                ),
                "norm": _sgd(recipe.bias_rate, falling, decay, recipe.other_momentum),
                "head": _sgd(recipe.head_rate, falling, decay, recipe.other_momentum),
            }
        else:
            factor = self._triangle(recipe, now)
            rate = recipe.learning_rate / recipe.scale
            decay = recipe.decay * self.record.batch_size / recipe.scale
            usual = _sgd(rate, factor, decay, recipe.momentum)
            fast = _sgd(recipe.bias_factor * rate, factor, decay, recipe.momentum)
            trained = jnp.where(step < frozen_after, factor, 0.0)
            rules = {
                "kernel": usual,
                "whitening": _sgd(rate, trained, decay, recipe.momentum),
                "norm": fast,
                "head": usual,
            }
        return optax.partition(rules, _parts)

    def _triangle(self, recipe: Nesterov, now: jax.Array) -> jax.Array:
        """Linear from `first` to 1 over the warm-up and from there to `last`."""
        peak = int(recipe.warmup * self.steps)
        return jnp.interp(
            now,
            jnp.array([0.0, peak, self.steps]),
            jnp.array([recipe.first, 1.0, recipe.last]),
        )

    def _evaluate(self, state: State, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        network = self.record.network(self.dtype)
        variables = {"params": state.params, **state.statistics}

        def logits(image: jax.Array) -> jax.Array:
            return jnp.asarray(network.apply(variables, image, train=False))

        def part(images: jax.Array) -> tuple[jax.Array, jax.Array]:
            image = PREPROCESS(images)
            seen = [(logits(view), weight) for view, weight in views_of(image, "mirror-shift")]
            weighted = [weight * one for one, weight in seen]
            return sum(weighted[1:], weighted[0]), seen[0][0]

        size = min(EVALUATED, len(images))
        parts = math.ceil(len(images) / size)
        padded = jnp.pad(images, ((0, parts * size - len(images)), *((0, 0),) * 3))
        found = lax.map(part, padded.reshape(parts, size, *images.shape[1:]))
        together, alone = (x.reshape(-1, x.shape[-1])[: len(images)] for x in found)
        return together, alone


def cover(keys: jax.Array, image: jax.Array, side: int) -> jax.Array:
    """Set a square of each image to 0 that lies inside it, anywhere alike."""
    spatial = image.shape[1:3]

    def hole(key: jax.Array) -> jax.Array:
        room = jnp.array([n - side + 1 for n in spatial])
        start = jax.random.randint(key, (2,), 0, room)
        return box(spatial, list(start), [jnp.array(side)] * 2)

    return jnp.where(jax.vmap(hole)(keys)[..., None], jnp.zeros_like(image), image)


def _sgd(
    peak: float, factor: jax.Array, decay: float, momentum: float
) -> optax.GradientTransformation:
    """SGD as in PyTorch; `decay` is what weight decay times the peak rate comes to."""
    return optax.chain(
        optax.add_decayed_weights(decay / peak),
        optax.trace(decay=momentum, nesterov=True),
        optax.scale(-peak * factor),
    )


def _parts(params: Any) -> Any:
    """Of each parameter, the rule that moves it."""
    flat = flax.traverse_util.flatten_dict(params)

    def rule(path: tuple[str, ...]) -> str:
        if path[0] == "head":
            return "head"
        if path[0] == "whiten":
            return "whitening"
        return "norm" if path[-1] == "bias" else "kernel"

    return flax.traverse_util.unflatten_dict({path: rule(path) for path in flat})
