"""Which learning rates train: the range test of Smith (2017, "Cyclical learning rates").

One short training in which the learning rate rises from almost nothing until the loss
explodes, with everything else as in the recipe. Nothing is saved.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax import environment, nn
from cnn_jax.assembly import Assembly, assemble_run
from cnn_jax.data import Dataset
from cnn_jax.errors import RecipeError
from cnn_jax.recipe import Recipe
from cnn_jax.training.devices import numerics

_EXPLODED = 4.0  # times the lowest loss so far, means of the last few: the test is over
_SPAN = 0.04  # of all steps: how far to each side losses are averaged

# What is taken out of a recipe, so that the rate is the one thing that changes.
_PLAIN = {
    "schedule.name": "constant",
    "schedule.warmup_epochs": 0.0,
    "train.until": "epochs",
    "train.chunk_steps": 1,
}


@dataclass(frozen=True, eq=False)
class RangeTest:
    """What a range test saw; T steps.

    Attributes:
      rates: float64 `[T]`, the learning rate of each step.
      losses: float64 `[T]`, the training loss before each step; steps in whose batch all
        classes have weight 0 are left out.
      smoothed: float64 `[T]`, averaged over neighbouring steps.
      suggested: the rate at which the smoothed loss fell fastest.
      highest: the rate at which it was lowest: beyond, training gets worse.
    """

    rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray
    suggested: float
    highest: float


def range_test(
    recipe: Recipe,
    dataset: Dataset,
    *,
    model: nn.Module | None = None,
    low: float = 1e-5,
    high: float = 10.0,
    steps: int = 150,
) -> RangeTest:
    """Losses of steps whose learning rate is `low (high / low)^(t / (steps - 1))`.

    Args:
      recipe: of the run; its schedule is left out. Muon's rate for what it does not move
        keeps its proportion.
      dataset: with train, validation and test parts; only train is used.
      model: a module of your own, in place of the one the recipe names.
      low, high: first and last learning rate.
      steps: number of steps, unless the loss explodes before.

    Raises:
      RecipeError: fewer than 20 steps, or a range that does not rise.
      CnnJaxError: as `train`.
    """
    if steps < 20 or not 0 < low < high < float("inf"):
        raise RecipeError(
            "a range test needs at least 20 steps and 0 < low < high, not "
            f"{steps} steps from {low:g} to {high:g}"
        )
    environment.enable_compile_cache()
    rates = low * (high / low) ** (np.arange(steps) / (steps - 1))
    span = max(2, round(_SPAN * steps))
    used: list[float] = []
    losses: list[float] = []
    recent: list[float] = []  # means of the last few losses
    with numerics(recipe.train.precision):
        assembly = assemble_run(recipe.override(_PLAIN), dataset, model)
        for rate, loss in _losses(assembly, rates):
            recent.append(float(np.mean([*losses[-span:], loss])))
            if not np.isfinite(loss) or recent[-1] > _EXPLODED * min(recent):
                break
            used.append(rate)
            losses.append(loss)
    return _judge(np.array(used), np.array(losses), span)


def _losses(assembly: Assembly, rates: np.ndarray) -> Iterator[tuple[float, float]]:
    """Rate and training loss of each step whose batch has any weight."""
    peak = assembly.recipe.optimizer.learning_rate
    state, feed = assembly.initial_state(), assembly.feeds["train"]
    done = 0
    while done < len(rates):
        epoch = done // feed.steps
        chunks = feed.train_chunks(
            seed=assembly.recipe.seed, epoch=epoch, first_step=0, chunk_steps=1
        )
        for chunk, rate in zip(chunks, rates[done:], strict=False):
            factor = assembly.placement.replicate(jnp.asarray(rate / peak, jnp.float32))
            state = state.replace(hyper={**state.hyper, "learning_rate_scale": factor})
            state, metrics = assembly.run_chunk(state, feed.resident, chunk)
            total, weight = jax.device_get(metrics["loss"])
            if weight:
                yield float(rate), float(total) / float(weight)
        done += feed.steps


def _judge(rates: np.ndarray, losses: np.ndarray, span: int) -> RangeTest:
    """The steepest descent before the lowest loss, in the logarithm of the rate.

    Raises:
      RecipeError: the loss never fell.
    """
    # Averaged to both sides, so that the curve does not lag behind the rate.
    window = np.ones(2 * span + 1)
    smoothed = losses
    if len(losses) >= len(window):
        count = np.convolve(np.ones(len(losses)), window, "same")
        smoothed = np.convolve(losses, window, "same") / count
    lowest = int(np.argmin(smoothed)) if len(losses) else 0
    if lowest <= span:
        raise RecipeError(
            f"the loss never fell in {len(losses)} steps up to a learning rate of "
            f"{rates[-1] if len(rates) else 0:g}: begin the range lower, or look at the data"
        )
    slope = np.gradient(smoothed[: lowest + 1], np.log(rates[: lowest + 1]))
    steepest = int(np.argmin(slope))
    return RangeTest(rates, losses, smoothed, float(rates[steepest]), float(rates[lowest]))
