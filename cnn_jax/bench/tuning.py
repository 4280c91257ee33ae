"""Measure which algorithm of `cnn_jax.ops` is the fastest for each convolution of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax import models
from cnn_jax.bench.programs import JaxRival, pure
from cnn_jax.bench.statistics import PairedRatio, paired_ratio
from cnn_jax.bench.timing import measure
from cnn_jax.errors import BenchmarkError
from cnn_jax.ops.algorithms import ALGORITHMS
from cnn_jax.ops.algorithms.rule import by_rule
from cnn_jax.ops.explanation import convolutions_of
from cnn_jax.ops.geometry import Convolution, words
from cnn_jax.ops.measured import add, key, user_table
from cnn_jax.ops.native.library import unavailable

# An entry is written only for a gain beyond noise and worth having.
GAIN = 0.95
SCREENING_ROUNDS, MOST_TIMES_SLOWER = 2, 1.5


@dataclass(frozen=True)
class Tuned:
    """A convolution, the algorithm of the rule, the fastest one, and how they compare."""

    conv: Convolution
    rule: str
    fastest: str
    ratio: PairedRatio | None

    @property
    def gains(self) -> bool:
        """Whether the fastest is surely faster than the rule's."""
        return self.ratio is not None and self.ratio.high < GAIN

    def __str__(self) -> str:
        if self.ratio is None:
            return f"{words(self.conv)}\n    {self.rule}: no other can compete"
        one = self.ratio
        return (
            f"{words(self.conv)}\n    {self.fastest} / {self.rule}: {one.ratio:.2f} "
            f"[{one.low:.2f}, {one.high:.2f}]{', kept' if self.gains else ''}"
        )


def tune(
    model: str,
    *,
    image_size: int,
    channels: int,
    batch_size: int,
    train: bool,
    pairs: int,
    say: Callable[[str], None],
) -> Path:
    """Measure each distinct convolution of a model's training step or inference.

    What is surely faster than the rule's algorithm goes into the user's table, which the
    choice reads from then on. The table is written after each gain.

    Args:
      model: name of a registered model; it gets 10 classes.
      image_size, channels: height and width of the images, and their channels.
      batch_size: examples in a batch.
      train: the gradients too.
      pairs: rounds of each comparison.
      say: told each line.

    Returns:
      The table's path.

    Raises:
      BenchmarkError: there is no cache to write to, or jax does not run on a CPU.
      ModelError: there is no such model.
    """
    path = user_table()
    if path is None:
        raise BenchmarkError("there is no cache to write to: set XDG_CACHE_HOME to a folder")
    if (platform := jax.devices()[0].platform) != "cpu":
        raise BenchmarkError(f"on {platform} the vendor's library chooses: nothing to tune")
    gains = 0
    for conv in _of_model(model, (batch_size, image_size, image_size, channels), train):
        tuned = compare(conv, pairs)
        say(str(tuned))
        if tuned.gains:
            gains += 1
            add(path, {key(conv): tuned.fastest})
    say(f"{gains} entries written to {str(path)!r}")
    return path


def compare(conv: Convolution, pairs: int) -> Tuned:
    """The fastest algorithm that can compute a convolution, against the rule's."""
    rule, _ = by_rule(conv, native=unavailable() is None)
    rivals = {name: _rival(conv, name) for name in ALGORITHMS if ALGORITHMS[name].fits(conv)}
    screened = measure(rivals, pairs=SCREENING_ROUNDS, measurement_seconds=0)
    best = {name: min(seconds) for name, seconds in screened.items()}
    others = {name: s for name, s in best.items() if name != rule}
    if not others or min(others.values()) > MOST_TIMES_SLOWER * best[rule]:
        return Tuned(conv, rule, rule, None)
    fastest = min(others, key=lambda name: others[name])
    seconds = measure({name: rivals[name] for name in (fastest, rule)}, pairs=pairs)
    return Tuned(conv, rule, fastest, paired_ratio(seconds[fastest], seconds[rule]))


def _rival(conv: Convolution, name: str) -> JaxRival:
    def run(lhs: jax.Array, rhs: jax.Array) -> jax.Array:
        return ALGORITHMS[name].apply(conv, lhs, rhs)

    draw = np.random.default_rng(0)
    shapes = (conv.lhs_shape, conv.rhs_shape)
    return pure(run, [jnp.asarray(draw.normal(size=shape), conv.dtype) for shape in shapes])


def _of_model(name: str, shape: tuple[int, ...], train: bool) -> Iterator[Convolution]:
    model = models.create(name, num_classes=10, image_size=shape[1:3])
    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)

    def outputs(params: Any, state: Mapping[str, Any], images: jax.Array) -> jax.Array:
        rngs = {"dropout": jax.random.key(0)}
        of_all = {"params": params, **state}
        if not train:
            return jnp.asarray(model.apply(of_all, images)).sum()
        result, _ = model.apply(of_all, images, train=True, rngs=rngs, mutable=list(state))
        return jnp.asarray(result).sum()

    state = {collection: v for collection, v in variables.items() if collection != "params"}
    function = jax.grad(outputs) if train else outputs
    found = convolutions_of(function, variables["params"], state, images)
    yield from {key(conv): conv for conv, _, _ in found}.values()
